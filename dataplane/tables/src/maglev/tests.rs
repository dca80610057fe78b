use super::*;
use proptest::prelude::*;
use wire::Address;

fn backends(count: usize, seed: u32) -> Vec<Backend> {
    let address = |n: usize| Address::v4(seed.wrapping_add(n as u32));
    (0..count).map(|n| Backend { address: address(n), port: 80, weight: 1 }).collect()
}

/// Slots per backend.
fn shares(ring: &[u16], backends: usize) -> Vec<usize> {
    let mut shares = vec![0; backends];
    for &index in ring {
        shares[usize::from(index)] += 1;
    }
    shares
}

#[test]
fn rings_are_primes_with_a_hundred_slots_per_backend() {
    for size in SIZES {
        assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size}");
    }
    let chosen = [1, 2, 3, 5, 6, 81, 82, 163, 1000, 1639, 5000, 65_535].map(size);
    assert_eq!(chosen, [251, 251, 509, 509, 1021, 8191, 16381, 16381, 16381, 32749, 65521, 131_071]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_backend_gets_its_share(count in 1..200_usize, seed: u32) {
        let ring = ring(&backends(count, seed));
        let shares = shares(&ring, count);
        let (min, max) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        // Every backend has a turn in every round, so only the last round is uneven.
        prop_assert!(max - min <= 1, "{min}..{max} of {}", ring.len());
    }

    /// As clusters share a service: each has a weight, which its backends share, however many they are.
    #[test]
    fn every_cluster_gets_its_share(
        clusters in prop::collection::vec((1..100_u32, 1..150_usize), 2..5),
        seed: u32,
    ) {
        let mut all = backends(clusters.iter().map(|(_, count)| count).sum(), seed);
        let mut at = 0;
        for &(weight, count) in &clusters {
            all[at..at + count].iter_mut().for_each(|b| b.weight = weight * 1_000_000 / count as u32);
            at += count;
        }
        let ring = ring(&all);
        let shares = shares(&ring, all.len());
        let total: u32 = clusters.iter().map(|(weight, _)| weight).sum();
        let mut at = 0;
        for &(weight, count) in &clusters {
            let share = shares[at..at + count].iter().sum::<usize>() as f64 / ring.len() as f64;
            let wanted = f64::from(weight) / f64::from(total);
            prop_assert!((share - wanted).abs() < 0.02, "{share} instead of {wanted}");
            at += count;
        }
    }

    #[test]
    fn a_lost_backend_moves_little_but_its_own(
        weights in prop::collection::vec(prop::sample::select(vec![100, 100, 100, 37, 10]), 7..80),
        seed: u32,
        victim: prop::sample::Index,
    ) {
        let count = weights.len();
        let mut all = backends(count, seed);
        all.iter_mut().zip(weights).for_each(|(backend, weight)| backend.weight = weight);
        let mut rest = all.clone();
        rest[victim.index(count)].weight = 0;
        let (before, after) = (ring(&all), ring(&rest));
        // A ring that had to be resized is another ring.
        prop_assume!(before.len() == after.len());
        let victim = victim.index(count) as u16;
        prop_assert!(!after.contains(&victim));
        let moved = before.iter().zip(&after).filter(|(b, a)| **b != victim && a != b).count();
        // The paper's figure 12 has 2 % at a hundred slots per backend; small rings vary more.
        prop_assert!(moved * 100 <= before.len() * 10, "{moved} of {}", before.len());
    }

    #[test]
    fn slots_cover_the_ring(hash: u64, size in 1..131_072_usize) {
        prop_assert!(slot(hash, size) < size);
        prop_assert_eq!((slot(0, size), slot(u64::MAX, size)), (0, size - 1));
    }
}

#[test]
fn backends_without_a_weight_have_no_slots() {
    let mut backends = backends(3, 1);
    for backend in &mut backends {
        backend.weight = 0;
    }
    assert!(ring(&backends).is_empty());
    backends[1].weight = 7;
    assert!(ring(&backends).iter().all(|&index| index == 1));
}

/// The hash is part of what the nodes of a mesh agree on: this test fails when it changes.
#[test]
fn rings_are_the_same_for_ever() {
    let ring = ring(&backends(3, 0x0a00_0001));
    assert_eq!(&ring[..16], &[1, 0, 1, 0, 2, 2, 0, 1, 0, 1, 2, 0, 0, 0, 0, 0]);
}
