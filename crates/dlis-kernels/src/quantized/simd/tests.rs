use dlis_formats::Quantization;
use dlis_model::Activation;

use super::*;

struct Check;

impl DotWork for Check {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let lanes = D::LANES;
        // Every extreme: 0, 255 and the offset itself, with -127 and 127.
        let x: Vec<u8> = (0..4 * lanes).map(|i| [0, 255, 128, 127, 1, 255, 254, 0, 129][i % 9]).collect();
        let w: Vec<i8> = (0..4 * lanes).map(|i| [127, -127, 127, 127, -1, 0, -127][i % 7]).collect();
        let product = |x: u8, w: i8| (i32::from(x) - D::OFFSET) * i32::from(w);
        let read = |sums: D::Ints| {
            let mut floats = vec![0.0; lanes];
            // SAFETY: it holds `LANES` elements.
            unsafe { d.store_floats(floats.as_mut_ptr(), d.float(sums)) };
            floats
        };
        let expect = |of: &dyn Fn(usize) -> i32| (0..lanes).map(|lane| of(lane) as f32).collect::<Vec<_>>();
        // SAFETY: every pointer is to as many elements as its method asks for.
        unsafe {
            let weights = d.weights(w.as_ptr());
            let words: Vec<i32> =
                x.chunks_exact(4).map(|x| i32::from_le_bytes(x.try_into().expect("four bytes"))).collect();
            let sums = d.dot(d.splat_int(5), d.quads(d.ints(words.as_ptr())), weights);
            let one = |lane: usize| (0..4).map(|i| product(x[4 * lane + i], w[4 * lane + i])).sum::<i32>();
            assert_eq!(read(sums), expect(&|lane| 5 + one(lane)));
            let sums = d.dot(d.splat_int(0), d.quads(d.splat_int(-1)), weights);
            assert_eq!(read(sums), expect(&|lane| (0..4).map(|i| product(255, w[4 * lane + i])).sum::<i32>()));

            let places = [0, 1, 2, 3].map(|row| x[row * lanes..].as_ptr());
            let sums = d.dot(d.splat_int(0), d.interleave(places), weights);
            let of_rows = |lane: usize| (0..4).map(|i| product(x[i * lanes + lane], w[4 * lane + i])).sum::<i32>();
            assert_eq!(read(sums), expect(&of_rows));

            // Five bytes pushed: the first is gone.
            let pushed = (0..5).fold(d.splat_int(0), |bytes, row| {
                let next = x[row * lanes / 2..].as_ptr();
                d.push(bytes, d.bytes(next))
            });
            let sums = d.dot(d.splat_int(0), d.quads(pushed), weights);
            let one =
                |lane: usize| (0..4).map(|i| product(x[(i + 1) * lanes / 2 + lane], w[4 * lane + i])).sum::<i32>();
            assert_eq!(read(sums), expect(&one));

            // Of the second with 255 and -127 each.
            let halves: Vec<i32> = (0..lanes).map(|lane| i32::from(w[lane]) & 0xffff | -127 << 16).collect();
            let highest = [255; 16];
            let pairs = d.pairs([x.as_ptr(), highest.as_ptr()]);
            let of_pairs = |lane: usize| 3 + i32::from(x[lane]) * i32::from(w[lane]) - 255 * 127;
            assert_eq!(read(d.dot_pairs(d.splat_int(3), pairs, d.ints(halves.as_ptr()))), expect(&of_pairs));

            let words = |ints: D::Ints| {
                let mut words = vec![0i32; lanes];
                d.store_ints(words.as_mut_ptr(), ints);
                words
            };
            #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
            let split =
                |ints: D::Ints| words(ints).into_iter().flat_map(|x| [x as i16, (x >> 16) as i16]).collect::<Vec<_>>();
            let both = |of: &dyn Fn(usize) -> i16| (0..2 * lanes).map(of).collect::<Vec<_>>();
            let bytes = d.words(x.as_ptr());
            assert_eq!(split(bytes), both(&|i| i16::from(x[i])));
            let [first, second] = d.halves(weights);
            let at = |i: usize, odd: usize| i16::from(w[i / 2 * 4 + i % 2 * 2 + odd]);
            assert_eq!(split(first), both(&|i| at(i, 0)));
            assert_eq!(split(second), both(&|i| at(i, 1)));
            // Beyond 16 bits, and 32.
            let large = d.shift_words::<3>(d.shift_words::<3>(d.shift_words::<1>(bytes)));
            assert_eq!(split(large), both(&|i| i16::from(x[i]) << 7));
            assert_eq!(
                split(d.add_words(large, d.shift_words::<2>(large))),
                both(&|i| (i16::from(x[i]) << 7).wrapping_mul(5))
            );
            assert_eq!(split(d.sub_words(first, large)), both(&|i| at(i, 0).wrapping_sub(i16::from(x[i]) << 7)));
            let some = d.ints(halves.as_ptr());
            let each = |of: &dyn Fn(i32) -> i32| halves.iter().map(|&x| of(x)).collect::<Vec<_>>();
            assert_eq!(words(d.add_ints(some, d.splat_int(i32::MIN))), each(&|x| x.wrapping_add(i32::MIN)));
            assert_eq!(words(d.mul_ints(some, d.splat_int(954_437_177))), each(&|x| x.wrapping_mul(954_437_177)));
            assert_eq!(words(d.part_64(some)), each(&|x| (x.cast_unsigned() / 64).cast_signed()));
            assert_eq!(words(d.shift_ints::<1>(some)), each(&|x| x << 1));
            assert_eq!(words(d.shift_ints::<2>(some)), each(&|x| x << 2));
            assert_eq!(words(d.shift_ints::<3>(some)), each(&|x| x << 3));
            assert_eq!(words(d.shift_ints::<4>(some)), each(&|x| x << 4));

            for some in 0..=lanes {
                let few = w[..4 * some].to_vec();
                let sums = d.dot(d.splat_int(1), d.interleave(places), d.some_weights(few.as_ptr(), some));
                assert_eq!(read(sums), expect(&|lane| 1 + if lane < some { of_rows(lane) } else { 0 }));
            }
            assert_eq!(read(d.sub(d.bytes(x.as_ptr()), d.splat_int(7))), expect(&|lane| i32::from(x[lane]) - 7));
        }
    }
}

struct Shares;

impl DotWork for Shares {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        // As far from zero as light weights go, to either side, alone and together.
        let lights: [[i8; 4]; 6] =
            [[127, 1, 64, 64], [-127, -1, -64, -64], [127, -127, 1, 127], [0; 4], [-128 + 5, -5, 100, 28], [3; 4]];
        for x in [[255u8; 4], [255, 0, 0, 255], [128, 127, 1, 254], [0; 4]] {
            let of = |x: [u8; 4], w: [i8; 4]| {
                x.into_iter().zip(w).map(|(x, w)| (i32::from(x) - D::SHARED_OFFSET) * i32::from(w)).sum::<i32>()
            };
            let light = |lane: usize| lights[lane % lights.len()];
            let w: Vec<i8> = (0..D::LANES).flat_map(light).collect();
            let mut found = vec![0.0; D::LANES];
            // SAFETY: every pointer is to as many elements as its method asks for.
            unsafe {
                let sums = d.dot_shared(d.splat_int(5), d.broadcast(x.as_ptr()), d.weights(w.as_ptr()));
                d.store_floats(found.as_mut_ptr(), d.float(sums));
            }
            let one = |lane| (5 + of(x, light(lane))) as f32;
            assert_eq!(found, (0..D::LANES).map(one).collect::<Vec<_>>(), "{x:?}");
        }
        // Together as light as they may be, to either side: the limit of 16 bits.
        let sets: [[[i8; 4]; 4]; 2] = [
            [[126, -60, 1, 0], [0, -60, -127, 64], [1, -8, 0, 60], [1, 0, -1, 3]],
            [[126, 0, -1, -100], [0, -1, -23, 127], [1, 0, 0, -1], [1, -127, -3, 1]],
        ];
        let bytes = [[255u8, 0, 255, 0], [9; 4], [0, 255, 0, 255], [255; 4]].concat();
        for (set, places) in sets.into_iter().flat_map(|set| [0, 2, 3].map(|place| (set, [place; 4]))) {
            let weights = set.map(|w| w.repeat(D::LANES));
            let of_some = |some: usize| {
                let product = |i: usize, byte: usize| {
                    (i32::from(bytes[4 * places[i] + byte]) - D::SHARED_OFFSET) * i32::from(set[i][byte])
                };
                let of = |i: usize| (0..4).map(|byte| product(i, byte)).sum::<i32>();
                vec![((0..some).map(of).sum::<i32>() - 9) as f32; D::LANES]
            };
            let mut found = vec![0.0; D::LANES];
            // SAFETY: as above, and there are four times four bytes.
            unsafe {
                let [a, b, c, e] = [0, 1, 2, 3].map(|i| d.weights(weights[i].as_ptr()));
                let sums = d.dot_set(d.splat_int(-9), bytes.as_ptr(), [places[0], places[1]], [a, b]);
                d.store_floats(found.as_mut_ptr(), d.float(sums));
                assert_eq!(found, of_some(2), "{set:?} {places:?}");
                for columns in [
                    d.dot_twice([d.splat_int(-9); 1], bytes.as_ptr(), [places[0], places[1]], [[a], [b]]).to_vec(),
                    d.dot_twice([d.splat_int(-9); 2], bytes.as_ptr(), [places[0], places[1]], [[a; 2], [b; 2]])
                        .to_vec(),
                ] {
                    for sums in columns {
                        d.store_floats(found.as_mut_ptr(), d.float(sums));
                        assert_eq!(found, of_some(2), "{set:?} {places:?}");
                    }
                }
                let sums = d.dot_twice([d.splat_int(-9); 2], bytes.as_ptr(), [places[0], places[1]], [[c, a], [e, b]]);
                d.store_floats(found.as_mut_ptr(), d.float(sums[1]));
                assert_eq!(found, of_some(2), "{set:?} {places:?}");
                let sums = d.dot_set(d.splat_int(-9), bytes.as_ptr(), places, [a, b, c, e]);
                d.store_floats(found.as_mut_ptr(), d.float(sums));
                assert_eq!(found, of_some(4), "{set:?} {places:?}");
            }
        }
    }
}

struct Turns;

impl DotWork for Turns {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        // Of every lane and place other bytes, among them the largest, times weights as light together as they may be.
        let vector = 4 * D::LANES;
        let byte = |i: usize| [255, 0, 3, 128, 254, 77, 255][(i + i / 7) % 7];
        let bytes: Vec<u8> = (0..5 * vector).map(byte).collect();
        let set = [[126i8, -60, 1, 0], [0, -60, -127, 64], [1, -8, 0, 60], [1, 0, -1, 3]];
        let places = [3, 0, 4, 1].map(|place| place * D::LANES);
        let of_some = |some: usize| {
            let product = |i: usize, lane: usize, byte: usize| {
                (i32::from(bytes[4 * (places[i] + lane) + byte]) - D::SHARED_OFFSET) * i32::from(set[i][byte])
            };
            let of = |lane: usize| (0..4 * some).map(|at| product(at / 4, lane, at % 4)).sum::<i32>();
            (0..D::LANES).map(|lane| of(lane) + 9).collect::<Vec<_>>()
        };
        let mut found = vec![0i32; D::LANES];
        // SAFETY: four weights each, vectors of bytes at four times each place, and room for one of sums.
        unsafe {
            let [a, b, c, e] = set.map(|weights| d.weights_of_all(weights.as_ptr()));
            let sums = d.dot_set_of_lanes(d.splat_int(9), bytes.as_ptr(), [places[0], places[1]], [a, b]);
            d.store_ints(found.as_mut_ptr(), sums);
            assert_eq!(found, of_some(2));
            let sums = d.dot_set_of_lanes(d.splat_int(9), bytes.as_ptr(), places, [a, b, c, e]);
            d.store_ints(found.as_mut_ptr(), sums);
            assert_eq!(found, of_some(4));
        }
        // Rows that lie apart, in another order, from an odd offset on.
        let apart = vector + 5;
        let from: Vec<u8> = (0..apart * D::LANES).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let start = |row: usize| (row * 3 + 1) % D::LANES * apart;
        let rows: Vec<*const u8> = (0..D::LANES).map(|row| from[start(row)..].as_ptr()).collect();
        let mut to = vec![7u8; apart * D::LANES];
        // SAFETY: a row has a vector and five bytes more, on both sides.
        unsafe { d.transpose(&rows, 3, to.as_mut_ptr(), apart) };
        for (column, of_column) in to.chunks_exact(apart).enumerate() {
            for (row, word) in of_column[..vector].chunks_exact(4).enumerate() {
                assert_eq!(word, &from[start(row) + 3 + 4 * column..][..4], "row {row}, column {column}");
            }
            assert_eq!(&of_column[vector..], [7; 5], "nothing is written between columns");
        }
    }
}

struct Decodes;

impl DotWork for Decodes {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let lanes = D::LANES;
        let x = [1u8, 255, 0, 130];
        // Every lane has values of its own.
        let table: Vec<u8> = (0..lanes)
            .flat_map(|lane| {
                let [one, two] = [127 - 8 * i32::try_from(lane).unwrap(), 3 * i32::try_from(lane).unwrap() - 127];
                [0, one, two, 0].map(|value| i8::try_from(value).unwrap().cast_unsigned())
            })
            .collect();
        let codes: Vec<u8> = (0..4 * lanes)
            .map(|i| (0..4).map(|place| u8::try_from((i * 7 + place * 5 + i / 3) % 3).unwrap() << (2 * place)).sum())
            .collect();
        let check = |place: usize, some: usize, weights: D::Weights| {
            let one = |lane: usize| {
                let of = |i: usize| {
                    let code = if lane < some { codes[4 * lane + i] >> (2 * place) & 3 } else { 0 };
                    let value = table[4 * lane + usize::from(code)].cast_signed();
                    (i32::from(x[i]) - D::OFFSET) * i32::from(value)
                };
                (0..4).map(of).sum::<i32>() as f32
            };
            let mut found = vec![0.0; lanes];
            // SAFETY: four bytes are readable, and it holds `LANES` elements.
            unsafe {
                let sums = d.dot(d.splat_int(0), d.quads(d.splat_int(i32::from_le_bytes(x))), weights);
                d.store_floats(found.as_mut_ptr(), d.float(sums));
            }
            assert_eq!(found, (0..lanes).map(one).collect::<Vec<_>>(), "place {place}, {some} lanes");
        };
        for some in 0..=lanes {
            let few = codes[..4 * some].to_vec();
            // SAFETY: both have four bytes for each lane that is read.
            let (codes, table) = unsafe { (d.some_codes(few.as_ptr(), some), d.tables(table.as_ptr())) };
            check(0, some, d.decode::<0>(codes, table));
            check(1, some, d.decode::<1>(codes, table));
            check(2, some, d.decode::<2>(codes, table));
            check(3, some, d.decode::<3>(codes, table));
        }
        // SAFETY: both have four bytes a lane.
        let (codes, table) = unsafe { (d.codes(codes.as_ptr()), d.tables(table.as_ptr())) };
        check(3, lanes, d.decode::<3>(codes, table));
    }
}

struct Rounds;

impl DotWork for Rounds {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let values = [
            0.5,
            1.5,
            -0.5,
            -2.5,
            2.501,
            f32::NAN,
            1e30,
            -1e30,
            f32::INFINITY,
            f32::NEG_INFINITY,
            154.5,
            -99.6,
            -0.0,
            40_000.0,
            -40_000.0,
            2_147_483_520.0,
            -2_147_483_520.0,
        ];
        let activations = [None, Some(Activation::Relu), Some(Activation::Relu6)];
        let cases = [0, 1, 100, 255].into_iter().flat_map(|zero| activations.map(|activation| (zero, activation)));
        for (zero_point, activation) in cases {
            let output = Quantization::new(0.05, zero_point).unwrap();
            let rounding = Rounding::new(output, activation);
            let ends = Ends::new(d, rounding);
            for window in values.windows(1).chain(values.windows(2)).chain(values.windows(5)) {
                let lane = |i: usize| window[i % window.len()];
                let x: Vec<f32> = (0..D::LANES).map(lane).collect();
                let expected: Vec<u8> = x.iter().map(|&x| rounding.round(x)).collect();
                let mut out = vec![7u8; D::LANES];
                // SAFETY: both hold `LANES` elements.
                unsafe { d.store_bytes(out.as_mut_ptr(), d.floats(x.as_ptr()), &ends) };
                assert_eq!(out, expected, "{x:?} {output:?} {activation:?}");
            }
            let tame: Vec<f32> = values.into_iter().filter(|x| x.abs() < 2_147_483_648.0).collect();
            for first in 0..tame.len() {
                let x: Vec<f32> = (0..4 * D::LANES).map(|i| tame[(first + i) % tame.len()]).collect();
                let expected: Vec<u8> = x.iter().map(|&x| rounding.round(x)).collect();
                let (mut out, mut lanes) = (vec![7u8; 4 * D::LANES], vec![0i32; D::LANES]);
                // The places are not in the order of the vectors.
                let order = [2, 0, 3, 1];
                // SAFETY: all hold as many vectors as are read and written.
                unsafe {
                    let vectors = [0, 1, 2, 3].map(|i| d.floats(x.as_ptr().add(i * D::LANES)));
                    let to = out.as_mut_ptr();
                    d.store_four(order.map(|i| to.add(i * D::LANES)), vectors, &ends);
                    d.store_ints(lanes.as_mut_ptr(), d.side_by_side(vectors, &ends));
                }
                for (lane, found) in lanes.into_iter().enumerate() {
                    assert_eq!(found.to_le_bytes(), [0, 1, 2, 3].map(|i| expected[i * D::LANES + lane]));
                }
                let ordered = order.map(|i| out[i * D::LANES..][..D::LANES].to_vec()).concat();
                assert_eq!(ordered, expected, "{x:?} {output:?} {activation:?}");
            }
        }
    }
}

fn check<D: Dot>(hw: &Hardware) {
    match D::new(hw) {
        Some(dot) => {
            dot.vectorize(Check);
            dot.vectorize(Shares);
            dot.vectorize(Turns);
            dot.vectorize(Decodes);
            dot.vectorize(Rounds);
        }
        None => eprintln!("skipped: this machine has no {}", std::any::type_name::<D>()),
    }
}

#[test]
fn every_level_is_exact() {
    let hw = Hardware::detect();
    check::<Portable>(&hw);
    #[cfg(target_arch = "x86_64")]
    {
        check::<Avx2>(&hw);
        check::<AvxVnni>(&hw);
        check::<Avx512Vnni>(&hw);
    }
    #[cfg(target_arch = "aarch64")]
    {
        check::<Neon>(&hw);
        check::<NeonDotprod>(&hw);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn levels_and_extensions_can_be_withheld() {
    use dlis_hw::SimdLevel;
    let hw = Hardware::detect();
    let portable = hw.with_simd(SimdLevel::Portable);
    assert!(Avx2::new(&portable).is_none() && AvxVnni::new(&portable).is_none());
    assert!(Avx512Vnni::new(&hw.with_simd(SimdLevel::Avx2)).is_none());
    let mut plain = hw;
    plain.isa_flags.retain(|flag| !flag.contains("vnni"));
    assert!(AvxVnni::new(&plain).is_none() && Avx512Vnni::new(&plain).is_none());
}

#[test]
#[cfg(target_arch = "aarch64")]
fn levels_and_extensions_can_be_withheld() {
    use dlis_hw::SimdLevel;
    let hw = Hardware::detect();
    let portable = hw.with_simd(SimdLevel::Portable);
    assert!(Neon::new(&portable).is_none() && NeonDotprod::new(&portable).is_none());
    let mut plain = hw;
    plain.isa_flags.retain(|flag| flag != "asimddp");
    assert!(Neon::new(&plain).is_some() && NeonDotprod::new(&plain).is_none());
}
