//! Turns of weighted choices: smooth, and exact over the weights' reduced sum.
//!
//! Data, built with the snapshot. `route` and `upstream::balance` ask it with
//! a position that all workers share, so a choice costs one atomic increment
//! and one look-up. No state, no lock.

/// Whose turn it is at each position; it repeats after the weights' sum,
/// reduced by their greatest common divisor.
#[derive(Clone, Default, Debug)]
pub(crate) struct Schedule(Turns);

#[derive(Clone, Default, Debug)]
enum Turns {
    /// All weights are zero.
    #[default]
    Nobody,
    /// Every prefix within one turn of the exact share.
    Table(Box<[u32]>),
    /// Every prefix within two turns.
    Formula(Split),
}

/// Sums up to this one get a table (16 KiB at most).
const TABLE_TURNS: u64 = 4096;

impl Schedule {
    pub(crate) fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let mut shares: Vec<Share> = weights
            .into_iter()
            .zip(0..)
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, index)| Share {
                index,
                weight: u64::from(weight),
            })
            .collect();
        let divisor = shares
            .iter()
            .fold(0, |divisor, share| gcd(divisor, share.weight));
        if divisor == 0 {
            return Self(Turns::Nobody);
        }
        for share in &mut shares {
            share.weight /= divisor;
        }
        let sum: u64 = shares.iter().map(|share| share.weight).sum();
        Self(if sum <= TABLE_TURNS {
            Turns::Table(table(&shares, sum))
        } else {
            Turns::Formula(Split::new(shares))
        })
    }

    /// Index into the weights; `None` when all are zero.
    pub(crate) fn at(&self, position: u64) -> Option<usize> {
        let index = match &self.0 {
            Turns::Nobody => return None,
            Turns::Table(turns) => {
                *turns.get(usize::try_from(position % turns.len() as u64).ok()?)?
            }
            Turns::Formula(split) => split.at(position),
        };
        usize::try_from(index).ok()
    }
}

#[derive(Clone, Copy, Debug)]
struct Share {
    index: u32,
    weight: u64,
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Tijdeman's chairman assignment (Discrete Mathematics 32, 1980): among those
/// whose deficit is at least 1/(2n-2), the one whose deadline comes first. Its
/// bound of 1 - 1/(2n-2) holds for every prefix; nginx's smooth weighted round
/// robin has none that doesn't grow with the number of weights.
fn table(shares: &[Share], sum: u64) -> Box<[u32]> {
    let [first, _, ..] = shares else {
        return shares.iter().map(|share| share.index).collect();
    };
    let (sum, scale) = (sum as i64, 2 * shares.len() as i64 - 2);
    let mut given = vec![0_i64; shares.len()];
    (1..=sum)
        .map(|turn| {
            let (mut best, mut best_at, mut best_deadline) = (*first, 0, None);
            for (at, share) in shares.iter().enumerate() {
                let deficit = scale * (share.weight as i64 * turn - given[at] * sum);
                let (deadline, weight) = (sum * (scale - 1) - deficit, share.weight as i64);
                let is_sooner = best_deadline.is_none_or(|best_deadline: i64| {
                    i128::from(deadline) * i128::from(best.weight)
                        < i128::from(best_deadline) * i128::from(weight)
                });
                if deficit >= sum && is_sooner {
                    (best, best_at, best_deadline) = (*share, at, Some(deadline));
                }
            }
            given[best_at] += 1;
            best.index
        })
        .collect()
}

/// A tree of two-way splits, each the best rounding of its share, so that a
/// sum of millions needs no table. Halves are of about equal weight, which
/// keeps the errors of the levels from adding up.
#[derive(Clone, Debug)]
struct Split {
    /// Heaviest first.
    shares: Box<[Share]>,
    /// `sums[i]`: weight of the first `i` shares.
    sums: Box<[u64]>,
}

impl Split {
    fn new(mut shares: Vec<Share>) -> Self {
        shares.sort_by_key(|share| std::cmp::Reverse(share.weight));
        let mut sums = vec![0];
        sums.extend(shares.iter().scan(0, |sum, share| {
            *sum += share.weight;
            Some(*sum)
        }));
        Self {
            shares: shares.into(),
            sums: sums.into(),
        }
    }

    fn at(&self, position: u64) -> u32 {
        let (mut from, mut to) = (0, self.shares.len());
        let mut position = position % self.sums[to].max(1);
        while to - from > 1 {
            let (base, whole) = (self.sums[from], self.sums[to] - self.sums[from]);
            let split =
                from + 1 + self.sums[from + 1..to].partition_point(|sum| (sum - base) * 2 < whole);
            let split = split.min(to - 1);
            let left = self.sums[split] - base;
            let lefts_before = |turns: u64| {
                let product = u128::from(turns) * u128::from(left) + u128::from(whole / 2);
                (product / u128::from(whole)) as u64
            };
            let before = lefts_before(position);
            if lefts_before(position + 1) > before {
                (to, position) = (split, before);
            } else {
                (from, position) = (split, position - before);
            }
        }
        self.shares[from].index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The greatest distance of any prefix from its exact share, and the counts.
    fn run(weights: &[u32], turns: u64) -> (f64, Vec<u64>) {
        let schedule = Schedule::new(weights.iter().copied());
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut counts = vec![0_u64; weights.len()];
        let mut worst = 0.0_f64;
        for position in 0..turns {
            counts[schedule.at(position).unwrap()] += 1;
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*weight) / sum * (position + 1) as f64;
                worst = worst.max((share - *count as f64).abs());
            }
        }
        (worst, counts)
    }

    #[test]
    fn ninety_to_ten_is_exact_over_ten_and_spread_out() {
        let schedule = Schedule::new([90, 10]);
        let turns: Vec<_> = (0..20)
            .map(|position| schedule.at(position).unwrap())
            .collect();
        assert_eq!(turns.iter().filter(|turn| **turn == 1).count(), 2);
        assert_eq!(turns[..10].iter().filter(|turn| **turn == 1).count(), 1);
    }

    #[test]
    fn a_zero_weight_never_has_a_turn_and_all_zero_is_nobody() {
        let (_, counts) = run(&[0, 3, 0, 1], 400);
        assert_eq!(counts, [0, 300, 0, 100]);
        assert_eq!(Schedule::new([0, 0]).at(7), None);
        assert_eq!(Schedule::new([]).at(0), None);
        assert_eq!(Schedule::new([0, 5]).at(u64::MAX), Some(1));
    }

    #[test]
    fn a_sum_of_a_million_is_exact_over_itself() {
        let weights = [999_983, 1, 17];
        let (worst, counts) = run(&weights, 1_000_001);
        assert_eq!(counts, weights.map(u64::from));
        assert!(worst <= 1.0, "{worst}");
    }

    #[test]
    fn equal_weights_take_turns_in_order_of_need() {
        let (worst, counts) = run(&[1; 300], 900);
        assert!(counts.iter().all(|count| *count == 3));
        assert!(worst < 1.0, "{worst}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_table_is_exact_over_its_sum_and_within_one_everywhere(weights in prop::collection::vec(0_u32..60, 1..17)) {
            let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, u64::from(*weight)));
            prop_assume!(divisor > 0);
            let period: u64 = weights.iter().map(|weight| u64::from(*weight)).sum::<u64>() / divisor;
            let (worst, counts) = run(&weights, period);
            prop_assert!(worst < 1.0, "{worst}");
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert_eq!(*count, u64::from(*weight) / divisor);
            }
            let schedule = Schedule::new(weights.iter().copied());
            for position in 0..period {
                prop_assert_eq!(schedule.at(position), schedule.at(position + 3 * period));
            }
        }

        #[test]
        fn a_formula_stays_within_two(weights in prop::collection::vec(1_u32..1_000_000, 2..17)) {
            let (worst, _) = run(&weights, 3000);
            prop_assert!(worst < 2.0, "{worst}");
        }
    }
}
