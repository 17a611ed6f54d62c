//! What must hold on any machine, and that measurements are of the right order.

use std::time::{Duration, Instant};

use dlis_hw::{Cache, Hardware, Peaks, SimdLevel};

#[test]
fn detection_invariants() {
    let hw = Hardware::detect();
    assert!(hw.logical_cores >= 1);
    assert!(hw.physical_cores.is_none_or(|n| n >= 1), "{hw:?}");
    assert_eq!(hw.arch, std::env::consts::ARCH);
    assert!(hw.supports(SimdLevel::Portable) && hw.supports(hw.simd()));
    assert!(hw.simd_levels.windows(2).all(|w| w[0] < w[1]));
    assert!(hw.simd_levels.iter().all(|level| level.is_available()));
    assert!(hw.l1d.is_none_or(|c| c.bytes >= 4096 && c.shared_by >= 1));
    assert!(hw.line_bytes.is_none_or(usize::is_power_of_two));
    if cfg!(target_os = "linux") {
        assert!(hw.memory_bytes.is_some());
    }
    assert_eq!(hw, Hardware::detect());
}

#[test]
fn forced_levels_only_take_away() {
    let hw = Hardware::detect();
    for level in SimdLevel::ALL {
        let forced = hw.with_simd(level);
        assert!(forced.simd() <= level);
        assert!(SimdLevel::ALL.into_iter().all(|l| forced.supports(l) == (hw.supports(l) && l <= level)));
        assert!(forced.isa_flags.iter().all(|f| hw.has_flag(f)));
        assert!(level >= SimdLevel::Avx512 || !forced.isa_flags.iter().any(|f| f.starts_with("avx512")));
        assert!(level >= SimdLevel::Avx2 || !forced.has_flag("fma"));
        assert_eq!(forced.with_simd(SimdLevel::Avx512), forced);
    }
    assert_eq!(hw.with_simd(SimdLevel::Avx512), hw);
    assert_eq!(hw.with_simd(SimdLevel::Portable).simd_levels, [SimdLevel::Portable]);
}

fn fixed() -> Hardware {
    Hardware {
        cpu_model: Some("Processor X".to_owned()),
        arch: "x86_64".to_owned(),
        os: "linux".to_owned(),
        logical_cores: 8,
        physical_cores: Some(4),
        l1d: Some(Cache { bytes: 32 << 10, shared_by: 2 }),
        l2: Some(Cache { bytes: 256 << 10, shared_by: 2 }),
        l3: Some(Cache { bytes: 8 << 20, shared_by: 8 }),
        line_bytes: Some(64),
        memory_bytes: Some(8 << 30),
        simd_levels: vec![SimdLevel::Portable, SimdLevel::Avx2],
        isa_flags: vec!["avx2".to_owned(), "fma".to_owned()],
    }
}

#[test]
fn fingerprint_is_stable() {
    let print = fixed().fingerprint();
    // Caches on disk are keyed by it: a change here makes all of them stale.
    assert_eq!(print, "3df15a6d6e4b5539");
    let other = Hardware { os: "freebsd".to_owned(), memory_bytes: None, ..fixed() };
    assert_eq!(other.fingerprint(), print);
    assert_eq!(Hardware::detect().fingerprint(), Hardware::detect().fingerprint());
}

#[test]
fn fingerprint_sees_everything_that_matters() {
    let mut prints = vec![fixed().fingerprint()];
    let changes: [fn(&mut Hardware); 10] = [
        |h| h.cpu_model = None,
        |h| h.cpu_model = Some("Processor Y".to_owned()),
        |h| h.arch = "aarch64".to_owned(),
        |h| h.logical_cores = 4,
        |h| h.physical_cores = Some(8),
        |h| h.l1d = None,
        |h| h.l2 = Some(Cache { bytes: 256 << 10, shared_by: 1 }),
        |h| h.l3 = Some(Cache { bytes: 16 << 20, shared_by: 8 }),
        |h| *h = h.with_simd(SimdLevel::Portable),
        |h| h.isa_flags.push("f16c".to_owned()),
    ];
    for change in changes {
        let mut hw = fixed();
        change(&mut hw);
        prints.push(hw.fingerprint());
    }
    assert!(prints.iter().all(|p| p.len() == 16 && p.bytes().all(|b| b.is_ascii_hexdigit())));
    let count = prints.len();
    prints.sort();
    prints.dedup();
    assert_eq!(prints.len(), count);
}

#[test]
fn summary() {
    let text = fixed().to_string();
    assert_eq!(
        text.lines().take(6).collect::<Vec<_>>(),
        [
            "cpu          Processor X (x86_64, linux)",
            "cores        8 logical, 4 physical",
            "simd         avx2 (of portable, avx2)",
            "isa          avx2 fma",
            "caches       L1d 32 KiB shared by 2, L2 256 KiB shared by 2, L3 8 MiB shared by 8; lines of 64 B",
            "memory       8 GiB",
        ]
    );
}

#[test]
fn records_round_trip() {
    for hw in [fixed(), Hardware::detect()] {
        let text = serde_json::to_string(&hw).unwrap();
        assert_eq!(serde_json::from_str::<Hardware>(&text).unwrap(), hw);
    }
    assert!(serde_json::from_str::<Hardware>("{}").is_err());
    // A record may come without levels; portable code still runs.
    let bare = Hardware { simd_levels: vec![], ..fixed() };
    assert_eq!(bare.simd(), SimdLevel::Portable);
    assert!(bare.supports(SimdLevel::Portable));
}

#[test]
fn peaks_are_of_the_right_order() {
    let hw = Hardware::detect();
    let start = Instant::now();
    let peaks = Peaks::measure(&[1, 2, 2, 0, usize::MAX], Duration::from_millis(400));
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    assert_eq!(peaks.fingerprint, hw.fingerprint());
    assert_eq!(peaks.compute.len(), 2 * hw.simd_levels.len());
    for point in &peaks.compute {
        // From a slow interpreter to ten times any core there is.
        assert!((1e7..1e13).contains(&point.flops.per_s), "{point:?}");
        assert!(point.flops.best_per_s >= point.flops.per_s && point.flops.samples >= 1);
    }
    for threads in [1, 2] {
        let sets: Vec<u64> =
            peaks.bandwidth.iter().filter(|p| p.threads == threads).map(|p| p.working_set_bytes).collect();
        assert!(
            sets.len() >= 2 && sets.windows(2).all(|w| w[0] < w[1]) && sets.iter().all(|&b| b <= 256 << 20),
            "{sets:?}"
        );
        let read = peaks.read_bytes_per_s(threads, 12 << 20).unwrap();
        let triad = peaks.triad_bytes_per_s(threads).unwrap();
        assert!((1e7..1e13).contains(&read) && (1e7..1e13).contains(&triad), "{read} {triad}");
        let roofline = peaks.roofline(threads).unwrap();
        assert!(roofline.time(1e9, 1e6, 1 << 20) >= Duration::from_micros(100));
    }
    let text = serde_json::to_string(&peaks).unwrap();
    assert_eq!(serde_json::from_str::<Peaks>(&text).unwrap(), peaks);
    assert_eq!(peaks.to_string().lines().count(), 1 + peaks.compute.len() + peaks.bandwidth.len());
}

#[test]
fn peaks_of_a_forced_level() {
    let hw = Hardware::detect().with_simd(SimdLevel::Portable);
    let peaks = Peaks::measure_on(&hw, &[1], Duration::ZERO);
    assert!(peaks.compute.iter().all(|p| p.simd == SimdLevel::Portable && p.threads == 1));
    assert_eq!(peaks.compute.len(), 1);
    assert!(!peaks.bandwidth.is_empty());
    assert_eq!(Peaks::measure_on(&hw, &[], Duration::ZERO).roofline(1), None);
}
