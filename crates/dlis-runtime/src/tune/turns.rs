//! Who runs when, and who is given up: what is measured is up to the caller.

use super::cache::Timing;

/// A contender whose first runs took this many times as long as the fastest's, or as what was measured before, is given up.
const HOPELESS: f64 = 3.0;
/// So is one whose fastest run, after so many rounds, took this many times as long as the fastest of all.
const FAR: f64 = 1.4;
const SIFTED_AFTER: usize = 5;
/// First runs: what happens the first time only is not held against anyone.
const FIRST_RUNS: usize = 2;
/// The time of a contender after which no round is added.
const ENOUGH_NS: u64 = 15_000_000;

/// The runs of one contender.
#[derive(Clone, Debug, Default)]
struct Contender {
    times: Vec<u64>,
    given_up: bool,
    abandoned: bool,
}

impl Contender {
    fn fastest(&self) -> f64 {
        self.times.iter().min().map_or(f64::INFINITY, |&ns| ns as f64)
    }

    /// No time is too short for the clock's resolution.
    fn median(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).map_or(f64::INFINITY, |&ns| ns.max(1) as f64)
    }
}

/// Runs `count` contenders in turns, `rounds` times at most after the first runs, and says what each took: the median of its
/// runs. `known` is the least time of others that need not run. `run` is called with whose turn it is and returns ns;
/// `give_up` with who runs no more.
pub(super) fn in_turns<E>(
    (count, rounds): (usize, usize),
    known: f64,
    mut run: impl FnMut(usize) -> Result<u64, E>,
    mut give_up: impl FnMut(usize),
) -> Result<Vec<Timing>, E> {
    let mut contenders = vec![Contender::default(); count];
    let mut fastest = known;
    let mut give_up_beyond = |contenders: &mut [Contender], ns: f64, abandoned: bool| {
        for (index, contender) in contenders.iter_mut().enumerate() {
            if !contender.given_up && contender.fastest() > ns {
                (contender.given_up, contender.abandoned) = (true, abandoned);
                give_up(index);
            }
        }
    };
    for index in 0..count {
        for _ in 0..FIRST_RUNS {
            contenders[index].times.push(run(index)?);
        }
        fastest = fastest.min(contenders[index].fastest());
        give_up_beyond(&mut contenders[..=index], HOPELESS * fastest, true);
    }
    for round in 0..rounds {
        if round == SIFTED_AFTER {
            fastest = contenders.iter().map(Contender::fastest).fold(fastest, f64::min);
            give_up_beyond(&mut contenders, FAR * fastest, false);
        }
        let running = contenders.iter().filter(|contender| !contender.given_up);
        let (left, spent) = (running.clone().count(), running.map(|contender| contender.times.iter().sum()).max());
        // Where one is left, nothing is compared any more.
        if left == 0 || (round >= SIFTED_AFTER && (left == 1 || spent > Some(ENOUGH_NS))) {
            break;
        }
        for (index, contender) in contenders.iter_mut().enumerate().filter(|(_, contender)| !contender.given_up) {
            contender.times.push(run(index)?);
        }
    }
    // Whoever was given up may have run in better times than those that went on.
    let left = contenders.iter().filter(|contender| !contender.given_up).map(Contender::median);
    let least = left.reduce(f64::min).map_or(0.0, |best| FAR * best);
    let outcome = |contender: &Contender| match contender {
        Contender { abandoned: true, .. } => Timing { ns: contender.fastest().max(1.0), abandoned: true },
        Contender { given_up: true, .. } => Timing { ns: contender.median().max(least), abandoned: false },
        _ => Timing { ns: contender.median(), abandoned: false },
    };
    Ok(contenders.iter().map(outcome).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timings, and how often each ran; `time` is of a contender's run of some number.
    fn race(count: usize, known: f64, time: impl Fn(usize, usize) -> u64) -> (Vec<Timing>, Vec<usize>) {
        let (mut runs, mut gone) = (vec![0; count], Vec::new());
        let run = |index: usize| {
            runs[index] += 1;
            Ok::<_, ()>(time(index, runs[index] - 1))
        };
        let outcomes = in_turns((count, 60), known, run, |index| gone.push(index)).unwrap();
        gone.sort_unstable();
        assert!(gone.windows(2).all(|two| two[0] < two[1]), "none is given up twice: {gone:?}");
        (outcomes, runs)
    }

    #[test]
    fn the_hopeless_cost_the_others_no_rounds() {
        // The slow one is first, so that nothing is known when it runs.
        let (outcomes, runs) = race(3, f64::INFINITY, |index, _| [9_000_000, 100_000, 110_000][index]);
        assert_eq!(runs, [2, 62, 62]);
        assert_eq!(outcomes[0], Timing { ns: 9e6, abandoned: true });
        assert_eq!(outcomes[1], Timing { ns: 1e5, abandoned: false });
    }

    #[test]
    fn a_slow_spell_decides_nothing() {
        // All slow down by two after whoever is far was given up.
        let spell = |index: usize, run: usize| [100_000, 150_000, 105_000][index] * if run < 7 { 1 } else { 2 };
        let (outcomes, runs) = race(3, f64::INFINITY, spell);
        assert_eq!(runs[1], 7);
        assert!(runs[0] > 20 && outcomes[0].ns < outcomes[2].ns && outcomes[2].ns < outcomes[1].ns, "{outcomes:?}");
        // One is slow in its first runs alone.
        let (outcomes, _) =
            race(
                2,
                f64::INFINITY,
                |index, run| if index == 0 && run < 3 { 200_000 } else { 100_000 + 9_000 * index as u64 },
            );
        assert!(outcomes[0].ns < outcomes[1].ns, "{outcomes:?}");
    }

    #[test]
    fn who_has_no_rival_stops_early() {
        assert_eq!(race(0, f64::INFINITY, |_, _| 1).0, []);
        assert_eq!(race(1, f64::INFINITY, |_, _| 1_000).1, [7]);
        // Slower than what was measured before.
        assert_eq!(race(2, 1_000.0, |index, _| [5_000, 2_000][index]).1, [2, 7]);
        let (outcomes, _) = race(1, 1_000.0, |_, run| [0, 7][run % 2]);
        assert!(outcomes[0].ns >= 1.0);
    }

    #[test]
    fn long_runs_are_few() {
        let (_, runs) = race(2, f64::INFINITY, |index, _| 10_000_000 + index as u64);
        assert_eq!(runs, [7, 7]);
    }

    #[test]
    fn an_error_ends_it() {
        assert_eq!(in_turns((1, 9), 1.0, |_| Err("no"), |_| {}), Err("no"));
    }
}
