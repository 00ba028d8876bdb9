//! Drawing episodes: what begins also ends, and no two at once are about the same thing.

use std::time::Duration;

use plimsoll_host::Random;

use super::{FIRST, Fault, LAST, Lie, Node};

/// A disk whose level changed this often is held back for longer each time (flap damping): no more than this many
/// episodes a disk.
const DISK_EPISODES_MAX: usize = 2;
const EPISODES_MIN: u64 = 4;
const EPISODES_MORE: u64 = 9;

/// What an episode is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subject {
    Disk(Node),
    Process(Node),
    Link(Node, Node),
    Links(Node),
    Network,
    Topic,
}

struct Drawing<'a> {
    random: &'a Random,
    faults: Vec<(Duration, Fault)>,
    taken: Vec<(Subject, Duration, Duration)>,
}

pub(super) fn index(random: &Random, below: u64) -> usize {
    usize::try_from(random.below(below)).unwrap_or(0)
}

/// A schedule; everything is over at [`LAST`].
pub(super) fn schedule(random: &Random) -> Vec<(Duration, Fault)> {
    let mut drawing = Drawing { random, faults: Vec::new(), taken: Vec::new() };
    let episodes = EPISODES_MIN + random.below(EPISODES_MORE);
    for _ in 0..episodes {
        let begin = FIRST + random.jitter(LAST.saturating_sub(FIRST + Duration::from_secs(2)));
        let end = (begin + Duration::from_millis(300) + random.jitter(Duration::from_secs(7))).min(LAST);
        drawing.episode(begin, end);
    }
    drawing.faults.sort_by_key(|(at, _)| *at);
    drawing.faults
}

impl Drawing<'_> {
    fn episode(&mut self, begin: Duration, end: Duration) {
        match self.random.below(22) {
            0 | 1 => self.fill(self.spu(), begin, end),
            2 => {
                for node in self.two_spus() {
                    self.fill(node, begin, end);
                }
            }
            3 => self.fill_all(begin, end),
            4 | 5 => self.killed_while_full(begin, end),
            6 => {
                let node = self.server();
                self.on(Subject::Disk(node), begin, end, Fault::NoInodes(node), Fault::Free(node));
            }
            7 => self.sync_fails(begin, end),
            8 => self.space(begin, end),
            9..=11 => self.down(begin, end),
            12 => {
                let node = self.controller();
                self.fill(node, begin, end);
            }
            13 => self.all_controllers(begin, end),
            14..=16 => self.cut(begin, end),
            17 => {
                let node = self.server();
                self.on(Subject::Links(node), begin, end, Fault::Isolate(node), Fault::Rejoin(node));
            }
            18 => {
                let node = self.server();
                self.on(Subject::Links(node), begin, end, Fault::Hold(node), Fault::Release(node));
            }
            19 => {
                let node = Node::ALL[index(self.random, 8)];
                let chance = u8::try_from(2 + self.random.below(20)).unwrap_or(2);
                self.on(Subject::Links(node), begin, end, Fault::Lossy(node, chance), Fault::Lossless(node));
            }
            20 => {
                let most = 20 + self.random.below(400);
                self.on(Subject::Network, begin, end, Fault::Slow(most), Fault::Quick);
            }
            _ => {
                if self.take(Subject::Topic, FIRST, LAST) {
                    self.faults.push((begin, Fault::DeleteTopic));
                    let node = self.spu();
                    self.fill(node, begin.saturating_sub(Duration::from_secs(1)), end);
                }
            }
        }
    }

    fn spu(&self) -> Node {
        Node::SPUS[index(self.random, 3)]
    }

    fn two_spus(&self) -> [Node; 2] {
        let first = index(self.random, 3);
        [Node::SPUS[first], Node::SPUS[(first + 1) % 3]]
    }

    fn controller(&self) -> Node {
        Node::CONTROLLERS[index(self.random, 3)]
    }

    fn server(&self) -> Node {
        Node::SERVERS[index(self.random, 6)]
    }

    fn free(&self, subject: Subject, begin: Duration, end: Duration) -> bool {
        let margin = Duration::from_millis(100);
        let often = self.taken.iter().filter(|(other, ..)| *other == subject).count();
        (!matches!(subject, Subject::Disk(_)) || often < DISK_EPISODES_MAX)
            && self
                .taken
                .iter()
                .filter(|(other, ..)| *other == subject)
                .all(|(_, from, to)| end + margin <= *from || *to + margin <= begin)
    }

    fn take(&mut self, subject: Subject, begin: Duration, end: Duration) -> bool {
        let free = self.free(subject, begin, end);
        if free {
            self.taken.push((subject, begin, end));
        }
        free
    }

    fn on(&mut self, subject: Subject, begin: Duration, end: Duration, bad: Fault, good: Fault) {
        if self.take(subject, begin, end) {
            self.faults.push((begin, bad));
            self.faults.push((end, good));
        }
    }

    fn fill(&mut self, node: Node, begin: Duration, end: Duration) {
        let greedy = self.random.below(2) == 0;
        self.on(Subject::Disk(node), begin, end, Fault::Fill { node, greedy }, Fault::Free(node));
    }

    /// All three storage nodes fill one after the other, and get room again one after the other.
    fn fill_all(&mut self, begin: Duration, end: Duration) {
        let first = index(self.random, 3);
        for n in 0..3 {
            let later = self.random.jitter(Duration::from_millis(800));
            let longer = self.random.jitter(Duration::from_secs(3));
            self.fill(Node::SPUS[(first + n) % 3], begin + later, (end + longer).min(LAST));
        }
    }

    /// A full disk, the process dies and starts with nothing free, and only then comes room.
    fn killed_while_full(&mut self, begin: Duration, end: Duration) {
        let node = if self.random.below(4) == 0 { self.controller() } else { self.spu() };
        let third = end.saturating_sub(begin) / 3;
        let (kill, start) = (begin + third, begin + third * 2);
        if self.free(Subject::Disk(node), begin, end)
            && self.free(Subject::Process(node), kill, start)
            && self.take(Subject::Disk(node), begin, end)
            && self.take(Subject::Process(node), kill, start)
        {
            self.faults.push((begin, Fault::Fill { node, greedy: true }));
            self.faults.push((kill, self.kill(node)));
            self.faults.push((start, Fault::Start(node)));
            self.faults.push((end, Fault::Free(node)));
        }
    }

    /// A process ends with the machine's power, or alone.
    fn kill(&self, node: Node) -> Fault {
        if self.random.below(2) == 0 {
            Fault::PowerLoss(node, self.random.next_u64())
        } else {
            Fault::Kill(node)
        }
    }

    fn down(&mut self, begin: Duration, end: Duration) {
        let node = self.server();
        let kill = self.kill(node);
        self.on(Subject::Process(node), begin, end, kill, Fault::Start(node));
    }

    fn all_controllers(&mut self, begin: Duration, end: Duration) {
        for node in Node::CONTROLLERS {
            let kill = self.kill(node);
            self.on(Subject::Process(node), begin, end, kill, Fault::Start(node));
        }
    }

    /// Ends with a restart; where operators are at work, storage nodes come back without one.
    fn sync_fails(&mut self, begin: Duration, end: Duration) {
        let node = self.server();
        let kill = end.saturating_sub(Duration::from_millis(200));
        if self.free(Subject::Disk(node), begin, end)
            && self.free(Subject::Process(node), begin, end)
            && self.take(Subject::Disk(node), begin, end)
            && self.take(Subject::Process(node), begin, end)
        {
            self.faults.push((begin, Fault::SyncFails(node)));
            self.faults.push((kill, Fault::Kill(node)));
            self.faults.push((end, Fault::Start(node)));
        }
    }

    fn space(&mut self, begin: Duration, end: Duration) {
        let node = self.server();
        let bad = match self.random.below(4) {
            0 => Fault::SpaceLies(node, Lie::Plenty),
            1 => Fault::SpaceLies(node, Lie::Nothing),
            2 => Fault::SpaceLies(node, Lie::Impossible),
            _ => Fault::SpaceHangs(node),
        };
        self.on(Subject::Disk(node), begin, end, bad, Fault::SpaceHonest(node));
    }

    fn cut(&mut self, begin: Duration, end: Duration) {
        let from = index(self.random, 8);
        let to = (from + 1 + index(self.random, 7)) % 8;
        let (from, to) = (Node::ALL[from], Node::ALL[to]);
        let both = self.random.below(3) == 0;
        let subject = Subject::Link(from.min(to), from.max(to));
        self.on(subject, begin, end, Fault::Cut { from, to, both }, Fault::Heal(from, to));
    }
}
