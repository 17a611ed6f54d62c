//! Files of packed weights: whole, and broken.

use dlis_formats::Int8;
use ndarray::ArrayD;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::tests::{bytes_of, read};
use super::*;
use crate::{Shape, Window};

/// A convolution of 5 input and 6 output channels whose weight has every format: ternary by row, 2:4, whole
/// numbers; and quantised activations.
fn network(format: Format, choices: &[u8]) -> Network {
    let mut graph = Graph::builder("packed", Shape::new(5, 4, 4));
    let x = graph.conv("conv", Value::Input, 6, Window::square(3));
    let x = graph.batch_norm("bn", x);
    let (graph, mut weights) = Network::random(graph.finish(x).unwrap(), 0).into_parts();
    let mut index = 0;
    let dense = ArrayD::from_shape_fn(vec![6, 5, 3, 3], |at| {
        index += 1;
        match choices[index % choices.len()] {
            0..64 if at[1] % 4 < 2 => 1.0 + at[0] as f32,
            192.. if at[1] % 4 < 2 => -2.0,
            _ => 0.0,
        }
    });
    weights.insert("conv.weight".to_owned(), Weight::F32(dense).convert(format).unwrap());
    let quantization = [
        (Value::Input, Quantization::new(0.1, 255).unwrap()),
        (Value::Layer(0), Quantization::new(f32::MIN_POSITIVE / 3.0, 0).unwrap()),
    ];
    Network::new(graph, weights).unwrap().with_quantization(quantization.into()).unwrap()
}

fn file(format: Format) -> Vec<u8> {
    let choices: Vec<u8> = (0..=255u8).map(|index| index.wrapping_mul(89)).collect();
    bytes_of(&Artefact::new(network(format, &choices)))
}

/// A file with its header edited.
fn edited(format: Format, edit: impl FnOnce(&mut Json)) -> Vec<u8> {
    let bytes = file(format);
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let mut header: Json = serde_json::from_slice(&bytes[8..][..length]).unwrap();
    edit(&mut header);
    let header = header.to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[8 + length..]].concat()
}

/// A file with the first byte of a tensor replaced.
fn poked(format: Format, tensor: &str, byte: u8) -> Vec<u8> {
    let mut start = 0;
    let mut bytes = edited(format, |header| start = header[tensor]["data_offsets"][0].as_u64().unwrap());
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    bytes[usize::try_from(8 + length + start).unwrap()] = byte;
    bytes
}

#[test]
fn parts_are_plain_tensors_of_the_container() {
    for format in Format::ALL {
        let artefact = read(&file(format)).unwrap();
        let bytes = file(format);
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let stored: usize = tensors.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
        // The headers of filters follow from their starts and are not in the file.
        let headers = if format == Format::FilterCsr { 30 * 40 } else { 0 };
        assert_eq!(stored, artefact.network.weight_bytes() - headers, "{format}");
        assert_eq!(artefact.network.weight("conv", "weight").unwrap().format(), format);
    }
}

#[test]
fn a_pruned_network_takes_in_a_file_what_its_weights_take() {
    let mut graph = Graph::builder("pruned", Shape::new(64, 8, 8));
    let mut x = Value::Input;
    for layer in 0..4 {
        x = graph.conv(format!("conv{layer}"), x, 64, Window::square(3).with_padding(1));
    }
    let (graph, mut weights) = Network::random(graph.finish(x).unwrap(), 0).into_parts();
    let dense: usize = weights.values().map(Weight::bytes).sum();
    for weight in weights.values_mut() {
        let mut index = 0;
        let pruned = weight.to_f32().mapv(|value| {
            index += 1;
            if index % 10 == 0 { half::f16::from_f32(value).to_f32() } else { 0.0 }
        });
        *weight = Weight::F32(pruned).convert(Format::CsrF16).unwrap();
    }
    let network = Network::new(graph, weights).unwrap();
    let (bytes, in_memory) = (bytes_of(&Artefact::new(network.clone())).len(), network.weight_bytes());
    assert!(bytes < in_memory + 3000 && bytes * 9 < dense, "{bytes} of {in_memory} in memory, {dense} dense");
}

#[test]
fn folding_keeps_formats_and_quantisations() {
    for format in Format::ALL {
        let folded = crate::fold_batch_norm(read(&file(format)).unwrap().network).unwrap();
        let found = folded.weight("conv", "weight").unwrap().format();
        let expected = match format {
            Format::DenseF16 => Format::ScaledF16,
            // Products of values and factors are no f16.
            Format::CsrF16 => Format::CsrF32,
            other => other,
        };
        assert_eq!(found, expected);
        assert_eq!(folded.quantization(Value::Input), Some(Quantization::new(0.1, 255).unwrap()));
        assert!(folded.quantization(Value::Layer(0)).is_some(), "the convolution keeps its own");
        let artefact = Artefact::new(folded);
        assert_eq!(read(&bytes_of(&artefact)).unwrap(), artefact);
    }
    // What the batch-norm's output was is now the convolution's.
    let of = |scale| Quantization::new(scale, 0).unwrap();
    let quantization = BTreeMap::from([(Value::Layer(0), of(1.0)), (Value::Layer(1), of(2.0))]);
    let network = network(Format::Int8, &[0, 99]).with_quantization(quantization).unwrap();
    let folded = crate::fold_batch_norm(network.clone()).unwrap();
    assert_eq!(folded.quantizations(), &BTreeMap::from([(Value::Layer(0), of(2.0))]));
    let beyond = network.with_quantization(BTreeMap::from([(Value::Layer(2), of(1.0))])).unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "network `packed`: a quantisation is of the output of layer 2, expected a layer below 2"
    );
}

#[test]
fn broken_parts_are_refused() {
    let retype = |format, tensor: &str, dtype: &str| {
        let tensor = tensor.to_owned();
        edited(format, move |header| header[tensor]["dtype"] = dtype.into())
    };
    let files = [
        edited(Format::Int8, |header| {
            let info = header.as_object_mut().unwrap().remove("conv.weight.scales").unwrap();
            header["conv.weight.other"] = info;
        }),
        edited(Format::Int8, |header| header["conv.weight.values"]["shape"] = json!([6, 45])),
        retype(Format::Int8, "conv.weight.values", "U8"),
        retype(Format::ScaledF16, "conv.weight.values", "U16"),
        retype(Format::Ternary2Bit, "conv.weight.codes", "BOOL"),
        edited(Format::Int8, |header| {
            let formats = header["__metadata__"][FORMATS].as_str().unwrap().replace("int8", "csr-f16");
            header["__metadata__"][FORMATS] = formats.into();
        }),
        edited(Format::Int4, |header| {
            let formats = header["__metadata__"][FORMATS].as_str().unwrap().replace("int4", "dense-f32");
            header["__metadata__"][FORMATS] = formats.into();
        }),
        poked(Format::Int8, "conv.weight.values", 0x80),
        poked(Format::Ternary2Bit, "conv.weight.codes", 3),
        poked(Format::Ternary5In8, "conv.weight.codes", 243),
        poked(Format::CsrF32, "conv.weight.row_starts", 1),
        poked(Format::CsrF16, "conv.weight.columns", 200),
        poked(Format::TwoFour, "conv.weight.positions", 0),
        edited(Format::Int8, |header| header["__metadata__"][ACTIVATIONS] = r#"{"pool":[1,0]}"#.into()),
        edited(Format::Int8, |header| header["__metadata__"][ACTIVATIONS] = r#"{"conv":[0,0]}"#.into()),
        edited(Format::Int8, |header| header["__metadata__"][ACTIVATIONS] = r#"{"conv":[1,256]}"#.into()),
    ];
    let messages: Vec<_> = files.iter().map(|bytes| read(bytes).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(messages.join("\n"), @r"
    tensor `conv.weight.scales` is missing: int8 weights have it
    tensor `conv.weight.values`: expected one extent, found shape [6, 45]
    tensor `conv.weight.values` is of type U8, expected I8
    tensor `conv.weight.values` is of type U16, expected F16
    tensor `conv.weight.codes` is of type BOOL, expected F32, F16, U32, U16, U8 or I8
    tensor `conv.weight.row_starts` is missing: csr-f16 weights have it
    weight `conv.weight` is missing: expected [6, 5, 3, 3]
    weight `conv.weight`, int8: `values`[0] is -128, expected -127 to 127
    weight `conv.weight`, ternary-2bit: `codes`[0] is 3, expected codes of 0 to 2, two bits each
    weight `conv.weight`, ternary-5in8: `codes`[0] is 243, expected five digits of base 3, at most 242
    weight `conv.weight`, csr-f32: `row_starts`[0] is 1, expected 0
    weight `conv.weight`, csr-f16: `columns`[0] is 200, expected columns below 45, increasing along a row
    weight `conv.weight`, two-four: `positions`[0] is 0, expected two places a group, the first before the second
    metadata `dlis.activations`: there is no layer `pool`
    metadata `dlis.activations`: `scale`[0] is 0, expected a finite number above 0 at line 1 column 14
    metadata `dlis.activations`: invalid value: integer `256`, expected u8 at line 1 column 14
    ");
}

#[test]
fn what_is_not_finite_is_refused_where_it_stands() {
    let mut artefact = network(Format::CsrF32, &[0]).into_parts();
    let mut dense = artefact.1["conv.weight"].to_f32().into_owned();
    dense[[2, 1, 0, 0]] = f32::NAN;
    for format in [Format::CsrF32, Format::Bsr4x1, Format::Bsr1x4, Format::TwoFour, Format::FilterCsr] {
        artefact.1.insert("conv.weight".to_owned(), Weight::F32(dense.clone()).convert(format).unwrap());
        let error = Network::new(artefact.0.clone(), artefact.1.clone()).unwrap_err();
        assert_eq!(error.to_string(), "weight `conv.weight`: element 99 is NaN, expected a finite number", "{format}");
    }
    // Finite parts whose product is not.
    let huge = Int8::new(vec![6, 5, 3, 3], vec![127; 270], vec![f32::MAX; 6]).unwrap();
    artefact.1.insert("conv.weight".to_owned(), Weight::Int8(huge));
    assert!(matches!(Network::new(artefact.0, artefact.1), Err(WeightError::Value { index: 0, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In every format, what is written is read, to the bit, quantisations included.
    #[test]
    fn every_format_round_trips(choices in proptest::collection::vec(any::<u8>(), 1..300)) {
        for format in Format::ALL {
            let artefact = Artefact::new(network(format, &choices));
            let bytes = bytes_of(&artefact);
            let back = read(&bytes).unwrap();
            prop_assert_eq!(bytes_of(&back), bytes);
            prop_assert_eq!(back, artefact);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens to a file of packed weights, reading it does not panic, and what can be read is an
    /// artefact.
    #[test]
    fn damage_never_panics(
        format in 0..Format::ALL.len(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = file(Format::ALL[format]);
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                // A digit for a digit keeps the header well-formed: sizes and offsets change.
                2 => if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + byte % 10;
                },
                // The last bytes are those of the smallest elements: codes, columns, positions.
                _ => {
                    let last = bytes.len() - 1 - at % 64;
                    bytes[last] = byte;
                }
            }
        }
        if let Ok(artefact) = read(&bytes) {
            prop_assert_eq!(read(&bytes_of(&artefact)).unwrap(), artefact);
        }
    }
}
