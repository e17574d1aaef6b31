//! Mutates a corpus and feeds it to a target, always in the same way.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fastrand::Rng;

/// How many inputs a target gets: seconds in either profile.
pub(crate) const INPUTS: usize = if cfg!(debug_assertions) {
    50_000
} else {
    200_000
};

/// Longer inputs find little and cost much.
const LONGEST: usize = 700;

/// Inputs to start from, and pieces that mean something to the parser.
pub(crate) struct Campaign<'a> {
    pub(crate) seeds: &'a [Vec<u8>],
    pub(crate) pieces: &'a [&'a [u8]],
}

impl Campaign<'_> {
    /// Runs `target` over every seed, then over mutations. A panic shows its input.
    pub(crate) fn run(&self, inputs: usize, seed: u64, target: impl Fn(&[u8], &mut Rng)) {
        let mut random = Rng::with_seed(seed);
        let short: Vec<_> = self
            .seeds
            .iter()
            .filter(|input| input.len() <= LONGEST)
            .collect();
        assert!(!short.is_empty(), "a campaign starts from something");
        for input in &short {
            check(input, &mut random, &target);
        }
        for _ in 0..inputs {
            let mut input = short[random.usize(..short.len())].clone();
            for _ in 0..random.usize(1..=3) {
                self.mutate(&mut input, &mut random);
            }
            input.truncate(LONGEST);
            check(&input, &mut random, &target);
        }
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Rng) {
        let at = random.usize(..=input.len());
        let end = (at + random.usize(1..=20)).min(input.len());
        match random.u8(..8) {
            0 => drop(input.drain(at..end)),
            1 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            2 if at < input.len() => input[at] = random.u8(..),
            3 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            4 => {
                let other = &self.seeds[random.usize(..self.seeds.len())];
                let from = random.usize(..=other.len());
                let piece = &other[from..(from + random.usize(1..=60)).min(other.len())];
                input.splice(at..at, piece.iter().copied());
            }
            5 => {
                let piece = self.pieces[random.usize(..self.pieces.len())];
                input.splice(at..end, piece.iter().copied());
            }
            _ => {
                let piece = self.pieces[random.usize(..self.pieces.len())];
                input.splice(at..at, piece.iter().copied());
            }
        }
    }
}

fn check(input: &[u8], random: &mut Rng, target: &impl Fn(&[u8], &mut Rng)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| target(input, random)));
    if let Err(panic) = outcome {
        eprintln!("the input was: {}", input.escape_ascii());
        resume_unwind(panic);
    }
}

/// Cuts bytes into pieces at random.
pub(crate) fn cut<'a>(mut bytes: &'a [u8], random: &mut Rng) -> Vec<&'a [u8]> {
    let longest = random.usize(1..=64);
    let mut pieces = Vec::new();
    while let Some((piece, rest)) =
        bytes.split_at_checked(random.usize(1..=longest).min(bytes.len()))
    {
        if piece.is_empty() {
            break;
        }
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
