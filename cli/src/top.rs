//! `plimsoll top`: the cluster on the whole terminal, live.

mod model;
mod screen;

use std::fmt::Display;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use plimsoll_client::Client;
use plimsoll_host::Host;
use plimsoll_host::config::Span;
use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};

use crate::connect::ConnectArgs;
use crate::exit::{Code, Failure, Outcome};
use model::{Look, Model};

/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(50);
/// How long one look at the cluster may take before the picture says that it is old.
const LOOK_MAX: Duration = Duration::from_secs(5);
const EVERY_MIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: Span,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What keys and the terminal asked for since the last look at them.
#[derive(Default)]
struct Asked {
    quit: bool,
    pause: bool,
    draw: bool,
}

pub(crate) async fn run(args: TopArgs, host: &Host) -> Outcome {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "top needs a terminal; without one use `plimsoll disk --watch` or `plimsoll cluster health --watch`";
        return Err(Failure::new(Code::Usage, why));
    }
    let client = args.connect.connect(host).await?;
    let (mut terminated, mut interrupted, mut hung_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    let mut terminal = ratatui::try_init()?;
    let every = args.every.0.max(EVERY_MIN);
    // However it ends, the terminal is left as it was.
    let ended = tokio::select! {
        ended = show(&mut terminal, host, every, asked, async || look(&client, host).await) => ended,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = hung_up.recv() => return Ok(()),
    };
    ratatui::try_restore()?;
    ended
}

/// Draws until it is told to quit. Keys are heard also while the cluster takes its time to answer.
async fn show<B: Backend<Error: Display>>(
    terminal: &mut Terminal<B>,
    host: &Host,
    every: Duration,
    mut asked: impl FnMut() -> Result<Asked, Failure>,
    look: impl AsyncFn() -> Result<Look, String>,
) -> Outcome {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut draw = |model: &Model| match terminal.draw(|frame| screen::draw(frame, model, colours)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Code::Failed, format!("the terminal: {error}"))),
    };
    let mut model = Model::default();
    let mut looking = None;
    let mut next = host.clock.now();
    draw(&model)?;
    loop {
        let mut asked = asked()?;
        if asked.quit {
            return Ok(());
        }
        if asked.pause {
            model.paused = !model.paused;
        }
        if model.paused {
            // What is under way would change a picture that is to stand still.
            looking = None;
        } else if looking.is_none() && host.clock.now() >= next {
            looking = Some(Box::pin(look()));
        }
        match &mut looking {
            None => host.clock.sleep(KEYS).await,
            Some(under_way) => tokio::select! {
                looked = under_way => {
                    match looked {
                        Ok(look) => model.take(look),
                        Err(why) => model.lost(why, host.clock.now()),
                    }
                    looking = None;
                    next = host.clock.now().saturating_add(every);
                    asked.draw = true;
                }
                () = host.clock.sleep(KEYS) => {}
            },
        }
        if asked.draw || asked.pause {
            draw(&model)?;
        }
    }
}

async fn look(client: &Client, host: &Host) -> Result<Look, String> {
    match host.clock.timeout(LOOK_MAX, model::look(client, host)).await {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(_) => Err("the controllers do not answer".to_owned()),
    }
}

fn asked() -> Result<Asked, Failure> {
    let mut asked = Asked::default();
    while event::poll(Duration::ZERO)? {
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => asked.quit = true,
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => asked.quit = true,
                KeyCode::Char('p' | ' ') => asked.pause = !asked.pause,
                _ => {}
            },
            Event::Resize(_, _) => asked.draw = true,
            _ => {}
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    #[tokio::test]
    async fn keys_are_heard_while_the_cluster_does_not_answer() {
        let host = Host::real();
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("memory");
        let mut pressed = [
            Asked::default(),
            Asked { pause: true, ..Asked::default() },
            Asked { quit: true, ..Asked::default() },
        ]
        .into_iter();
        let keys = || Ok(pressed.next().expect("nothing is asked behind the end"));
        let silence = async || std::future::pending().await;
        let shown = show(&mut terminal, &host, Duration::from_secs(1), keys, silence);
        let ended = host.clock.timeout(Duration::from_secs(60), shown).await;
        ended.expect("it quits").expect("without an error");
        let text: String = terminal.backend().buffer().content().iter().map(|cell| cell.symbol()).collect();
        assert!(text.contains("looking at the cluster") && text.contains("PAUSED"), "{text}");
    }
}
