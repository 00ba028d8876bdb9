use super::*;
use crate::raft_runtime::testing::Random;

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
        let mut input = random.mutate(&corpus[chosen], true);
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
