//! What is typed, checked before anything is dialled: nothing at all, which would quietly stand for a default, and
//! addresses.

use plimsoll_host::config::{ByteSize, Span};

/// A time of 1ms or more: that is what clusters count in, and they take 0 for "as usual" or "for ever".
pub(crate) fn time(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0.as_millis() == 0 { Err(format!("'{text}' is too short, 1ms is the least")) } else { Ok(span) }
}

/// A size of 1 byte or more: clusters take 0 for "as usual" or "without limit".
pub(crate) fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.0 == 0 { Err(format!("'{text}' is nothing, 1B is the least")) } else { Ok(size) }
}

/// Whether it is `HOST:PORT`, as the SDK takes it.
pub(crate) fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Whether these can be controllers: at least one, each `[ID@]HOST:PORT`.
///
/// # Errors
/// In words, which one cannot.
pub(crate) fn controllers(controllers: &[String]) -> Result<(), String> {
    if controllers.is_empty() {
        return Err("no controller is given: name at least one HOST:PORT".to_owned());
    }
    let is_one = |text: &str| is_address(text.rsplit_once('@').map_or(text, |(_, address)| address));
    match controllers.iter().find(|text| !is_one(text)) {
        Some(wrong) => Err(format!("'{wrong}' is not [ID@]HOST:PORT")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_of_something_is_no_value() {
        assert_eq!(time("1ms").map(|span| span.to_string()), Ok("1ms".to_owned()));
        assert_eq!(size("1"), Ok(ByteSize(1)));
        for none in ["0s", "0ms", "999us", "10XB", ""] {
            assert!(time(none).is_err(), "{none}");
        }
        for none in ["0", "0GiB", "-1", ""] {
            assert!(size(none).is_err(), "{none}");
        }
    }

    #[test]
    fn controllers_are_addresses() {
        let given =
            |texts: &[&str]| controllers(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(given(&["a:1", "2@[::1]:7001"]), Ok(()));
        assert!(given(&[]).is_err());
        for wrong in ["", "nonsense", "10XB", "a:", ":1", "a:0", "a:70000", "1@a"] {
            let why = given(&["a:1", wrong]).expect_err(wrong);
            assert!(why.contains(&format!("'{wrong}'")), "{why}");
        }
    }
}
