//! Topics as the controllers have them; while none of them leads, as one of them last knew them.

use plimsoll_client::{AdminError, Client, Reason, TopicInfo};

use crate::exit::{Failure, Outcome};

/// What is known of topics.
pub(crate) struct Known {
    /// By name.
    pub(crate) topics: Vec<TopicInfo>,
    /// Why they may be old.
    old: Option<Failure>,
}

/// All topics, or one.
///
/// # Errors
/// What the controllers refuse. Not that none leads, unless the topic is not known either.
pub(crate) async fn topics(client: &Client, only: Option<&str>) -> Result<Known, Failure> {
    let asked = match only {
        Some(name) => client.admin().describe_topic(name).await.map(|topic| vec![topic]),
        None => client.admin().list_topics().await,
    };
    let mut known = match asked {
        Ok(topics) => Known { topics, old: None },
        Err(error) if error.reason() == Some(Reason::NoQuorum) => last_known(client, only, error)?,
        Err(error) => return Err(error.into()),
    };
    known.topics.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(known)
}

fn last_known(client: &Client, only: Option<&str>, error: AdminError) -> Result<Known, Failure> {
    let image = client.metadata();
    let wanted = |topic: &&TopicInfo| only.is_none_or(|name| topic.name == name);
    let topics: Vec<TopicInfo> = image.topics.values().filter(wanted).cloned().collect();
    let mut failure = Failure::from(error);
    if only.is_some() && topics.is_empty() {
        return Err(failure);
    }
    failure.message.push_str("\nwhat is shown is what a controller knew last; it may be old");
    Ok(Known { topics, old: Some(failure) })
}

impl Known {
    /// How the command ends once they are printed.
    pub(crate) fn end(self) -> Outcome {
        self.old.map_or(Ok(()), Err)
    }
}
