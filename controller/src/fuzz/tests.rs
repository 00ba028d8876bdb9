use super::*;

struct Random(u64);

impl Random {
    /// Xorshift64* (Marsaglia 2003, Vigna 2016).
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % n.max(1)
    }

    fn mutate(&mut self, from: &[u8]) -> Vec<u8> {
        let mut out = from.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(out.len());
            let end = (at + 1 + self.below(40)).min(out.len());
            match self.below(6) {
                0 => out.truncate(at),
                1 => {
                    let copy = out[at..end].to_vec();
                    let to = self.below(out.len());
                    out.splice(to..to, copy);
                }
                2 => out[at..end].fill([0, 0xff][self.below(2)]),
                3 => out.insert(at, [0, 1, 0x7f, 0x80, 0xff][self.below(5)]),
                4 => drop(out.drain(at..end)),
                _ if at < out.len() => out[at] ^= 1 << self.below(8),
                _ => {}
            }
        }
        out
    }
}

fn fuzz(name: &str, quick: u32, is_read: fn(&[u8]) -> bool) {
    let full = std::env::var_os("PLIMSOLL_PROVE_FULL").is_some();
    let rounds = if full { quick * 50 } else { quick };
    let seed = std::env::var("PLIMSOLL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random(seed | 1);
    let corpus = corpus(name);
    for (number, input) in corpus.iter().enumerate() {
        assert!(is_read(input), "input {number} of the corpus, form {}", input[0]);
    }
    let (_, target) = TARGETS.into_iter().find(|(found, _)| *found == name).unwrap();
    target(&[]);
    let mut read = 0;
    for _ in 0..rounds {
        let chosen = random.below(corpus.len());
        let mut input = random.mutate(&corpus[chosen]);
        if random.below(10) == 0 && !input.is_empty() {
            input[0] = 0;
        }
        read += u32::from(is_read(&input));
    }
    assert!(0 < read && read < rounds, "{read} of {rounds} were read");
    let cases = corpus.len() + usize::try_from(rounds).unwrap();
    println!("CASES fuzz {name} cases={cases} read={read} seed={seed}");
}

#[test]
fn journals() {
    fuzz("journal", 400, journal_is_read);
}

#[test]
fn identities() {
    fuzz("identity", 400, identity_is_read);
}
