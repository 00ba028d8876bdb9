//! Names of segment files.

use plimsoll_proto::ids::Offset;

/// The three files of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileKind {
    Log,
    Index,
    TimeIndex,
}

impl FileKind {
    pub(crate) const ALL: [Self; 3] = [Self::Log, Self::Index, Self::TimeIndex];

    fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
        }
    }
}

/// Path of a segment's file.
pub(crate) fn path_of(dir: &str, base_offset: Offset, kind: FileKind) -> String {
    format!("{dir}/{:020}.{}", base_offset.get(), kind.extension())
}

/// Base offset and kind of a file, when its name is one that [`path_of`] makes.
pub(crate) fn parse_name(name: &str) -> Option<(Offset, FileKind)> {
    let (digits, extension) = name.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    if digits.len() != 20 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Offset::new(digits.parse().ok()?).ok()?, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_there_and_back() {
        for kind in FileKind::ALL {
            let path = path_of("d", Offset::MAX, kind);
            assert_eq!(parse_name(path.trim_start_matches("d/")), Some((Offset::MAX, kind)));
        }
        for other in ["checkpoint", "1.log", "00000000000000000001.txt", "99999999999999999999.log", "x.y.z"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
