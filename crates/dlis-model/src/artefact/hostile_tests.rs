//! Files that an adversary, or a broken disk, might hand over.

use std::io::Cursor;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::tests::{bytes_of, read, sample};
use super::*;
use crate::{Shape, Value, Window};

/// A small valid file: `conv` (2x1x1x1), `bn` (2 channels), `relu`.
fn small() -> Vec<u8> {
    let mut graph = Graph::builder("small", Shape::new(1, 2, 2));
    let x = graph.conv("conv", Value::Input, 2, Window::square(1));
    let x = graph.batch_norm("bn", x);
    let x = graph.relu("relu", x);
    bytes_of(&Artefact::new(Network::random(graph.finish(x).unwrap(), 0)))
}

/// Header and tensors put together as a file.
fn file(header: &str, tensors: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), tensors].concat()
}

/// The small file with its header edited.
fn edited(edit: impl FnOnce(&mut Json)) -> Vec<u8> {
    let bytes = small();
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let mut header = serde_json::from_slice(&bytes[8..][..length]).unwrap();
    edit(&mut header);
    file(&header.to_string(), &bytes[8 + length..])
}

/// The small file with the JSON of its graph edited.
fn graph_edited(edit: impl FnOnce(&mut Json)) -> Vec<u8> {
    edited(|header| {
        let mut graph = serde_json::from_str(header["__metadata__"][GRAPH].as_str().unwrap()).unwrap();
        edit(&mut graph);
        header["__metadata__"][GRAPH] = graph.to_string().into();
    })
}

fn message(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

fn messages(files: &[Vec<u8>]) -> String {
    files.iter().map(|bytes| message(bytes)).collect::<Vec<_>>().join("\n")
}

#[test]
fn broken_containers_are_refused() {
    let valid = small();
    let sized = |length: u64, rest: &[u8]| [&length.to_le_bytes(), rest].concat();
    // Offsets that add up to almost the whole address space.
    let most = (1u64 << 61) - 1;
    let mut tensors: Vec<String> = (0..8)
        .map(|i| {
            format!(r#""t{i}":{{"dtype":"U8","shape":[{most}],"data_offsets":[{},{}]}}"#, i * most, (i + 1) * most)
        })
        .collect();
    tensors.push(format!(r#""t8":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#, 8 * most, u64::MAX));
    insta::assert_snapshot!(messages(&[
        vec![],
        valid[..7].to_vec(),
        valid[..100].to_vec(),
        valid[..valid.len() - 1].to_vec(),
        [&valid[..], &[0]].concat(),
        sized(u64::MAX, b"{}"),
        sized(3, b"{}"),
        sized(2, b"{]"),
        sized(4, b"{\"\xff\""),
        file("null", &[]),
        file(&"[".repeat(100_000), &[]),
        file(&format!("{{\"a\":{}", "[".repeat(100_000)), &[]),
        file(&format!("{{{}}}", tensors.join(",")), &[]),
        file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}"#, &[0; 4]),
        file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, &[0; 4]),
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, &[0; 4]),
        file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, &[0; 8]),
        file(r#"{"__metadata__":{"dlis.version":1}}"#, &[]),
    ]), @r##"
    0 bytes, expected at least the 8 of the header's length
    7 bytes, expected at least the 8 of the header's length
    the header is 912 bytes long, expected at most 92
    39 bytes of tensors, expected the 40 that the header describes
    41 bytes of tensors, expected the 40 that the header describes
    the header is 18446744073709551615 bytes long, expected at most 2
    the header is 3 bytes long, expected at most 2
    the header is not that of a safetensors file: key must be a string at line 1 column 2
    the header is not UTF-8 from its byte 2
    the header is not that of a safetensors file: invalid type: null, expected struct HashMetadata at line 1 column 4
    the header is not that of a safetensors file: invalid type: sequence, expected struct HashMetadata at line 1 column 0
    the header is not that of a safetensors file: recursion limit exceeded at line 1 column 132
    0 bytes of tensors, expected the 18446744073709551615 that the header describes
    the header is not that of a safetensors file: overflow computing buffer size from shape and/or element type
    the header is not that of a safetensors file: invalid offset for tensor `a`
    the header is not that of a safetensors file: invalid shape, data type, or offset for tensor
    8 bytes of tensors, expected the 4 that the header describes
    the header is not that of a safetensors file: invalid type: integer `1`, expected a string at line 1 column 33
    "##);
}

#[test]
fn sizes_are_checked_before_anything_is_read() {
    let open = |bytes| Container::open(Cursor::new(Vec::new()), bytes).map(drop).unwrap_err();
    assert!(matches!(open(MAX_FILE_BYTES + 1), ArtefactProblem::FileSize { .. }));
    let header = (MAX_HEADER_BYTES + 1).to_le_bytes();
    let long = Container::open(Cursor::new(header), MAX_FILE_BYTES).map(drop).unwrap_err();
    assert!(matches!(long, ArtefactProblem::HeaderLength { max: MAX_HEADER_BYTES, .. }));
    // Such a file is not written either.
    let huge = sample().with("note", " ".repeat(usize::try_from(MAX_HEADER_BYTES).unwrap()));
    assert!(matches!(huge.write(&mut Vec::new()), Err(ArtefactProblem::HeaderLength { .. })));
}

#[test]
fn foreign_metadata_is_refused() {
    insta::assert_snapshot!(messages(&[
        edited(|header| drop(header.as_object_mut().unwrap().remove("__metadata__"))),
        edited(|header| drop(header["__metadata__"].as_object_mut().unwrap().remove(GRAPH))),
        edited(|header| header["__metadata__"][VERSION] = "2".into()),
        edited(|header| header["__metadata__"]["dlis.extra"] = "".into()),
        edited(|header| header["__metadata__"][FORMATS] = "[".into()),
        edited(|header| header["__metadata__"][FORMATS] = r#"{"conv.weight":"dense-f32"}"#.into()),
        edited(|header| {
            let formats = header["__metadata__"][FORMATS].as_str().unwrap().replace('}', r#","x":"dense-f32"}"#);
            header["__metadata__"][FORMATS] = formats.into();
        }),
    ]), @r##"
    metadata `dlis.version` is missing (a plain file of weights is read together with a graph)
    metadata `dlis.graph` is missing (a plain file of weights is read together with a graph)
    metadata `dlis.version` is `2`, expected `1`
    metadata `dlis.extra` is not a key of this format, to which all of `dlis.*` belong
    metadata `dlis.formats`: invalid type: sequence, expected a map at line 1 column 0
    metadata `dlis.formats`: weight `bn.bias` is missing
    metadata `dlis.formats`: there is no weight `x`
    "##);
}

#[test]
fn weights_that_their_format_cannot_hold_are_refused() {
    let reformatted = |name: &str| {
        edited(|header| {
            let formats = header["__metadata__"][FORMATS].as_str().unwrap().replace("dense-f32", name);
            header["__metadata__"][FORMATS] = formats.into();
        })
    };
    let unknown = read(&reformatted("dense-f8")).unwrap_err();
    assert!(matches!(unknown, ArtefactProblem::Json { key: FORMATS, .. }), "{unknown}");
    let rounded = read(&reformatted("dense-f16")).unwrap_err();
    assert!(matches!(&rounded, ArtefactProblem::Convert { weight, .. } if weight == "bn.bias"), "{rounded}");
}

#[test]
fn ill_formed_graphs_are_refused() {
    let layer = |edit: &dyn Fn(&mut Json)| graph_edited(|graph| edit(&mut graph["layers"][0]));
    insta::assert_snapshot!(messages(&[
        edited(|header| header["__metadata__"][GRAPH] = "[".repeat(1000).into()),
        graph_edited(|graph| graph["extra"] = 1.into()),
        graph_edited(|graph| graph["input"] = json!([1, 2])),
        graph_edited(|graph| graph["input"] = json!([u64::MAX, u64::MAX, 1])),
        graph_edited(|graph| (graph["layers"], graph["output"]) = (json!([]), Json::Null)),
        graph_edited(|graph| graph["output"] = "absent".into()),
        layer(&|layer| layer["inputs"] = json!(["absent"])),
        layer(&|layer| layer["inputs"] = json!(["conv"])),
        layer(&|layer| layer["inputs"] = json!(["relu"])),
        layer(&|layer| layer["inputs"] = json!([])),
        graph_edited(|graph| (graph["layers"][2]["name"], graph["output"]) = ("bn".into(), "bn".into())),
        layer(&|layer| layer["name"] = 3.into()),
        layer(&|layer| layer["extra"] = 3.into()),
        layer(&|layer| layer["groups"] = 0.into()),
        layer(&|layer| layer["groups"] = (-1).into()),
        layer(&|layer| layer["op"] = "conv3d".into()),
        layer(&|layer| layer["kernel"] = json!([0, 1])),
        layer(&|layer| layer["kernel"] = json!([u64::MAX, u64::MAX])),
        layer(&|layer| layer["padding"] = json!([u64::MAX, 0, 1, 0])),
        layer(&|layer| layer["out_channels"] = u64::MAX.into()),
        graph_edited(|graph| graph["layers"][1]["eps"] = (-1.0).into()),
        graph_edited(|graph| graph["layers"][1]["eps"] = 1e300.into()),
        graph_edited(|graph| {
            graph["layers"][2] = json!({"name": "relu", "inputs": ["bn"], "op": "softmax", "axis": 1});
        }),
        edited(|header| {
            let graph = header["__metadata__"][GRAPH].as_str().unwrap().replacen("{\"name\"", "{\"name\":\"x\",\"name\"", 1);
            header["__metadata__"][GRAPH] = graph.into();
        }),
    ]), @r##"
    metadata `dlis.graph`: invalid type: sequence, expected a string at line 1 column 1
    metadata `dlis.graph`: unknown field `extra`, expected one of `name`, `input`, `layers`, `output` at line 1 column 305
    metadata `dlis.graph`: invalid length 2, expected an array of length 3 at line 1 column 29
    metadata `dlis.graph`: network `small`: an input of 18446744073709551615x18446744073709551615x1 has no elements or more than 4294967296
    metadata `dlis.graph`: network `small`: 0 layers, expected 1 to 65536
    metadata `dlis.graph`: the output `absent` is not a layer
    metadata `dlis.graph`, layer `conv`: its input `absent` is not an earlier layer
    metadata `dlis.graph`, layer `conv`: its input `conv` is not an earlier layer
    metadata `dlis.graph`, layer `conv`: its input `relu` is not an earlier layer
    metadata `dlis.graph`: network `small`, layer `conv`: conv2d takes 1 input(s), found 0
    metadata `dlis.graph`: network `small`, layer `bn`: its name is empty or used by an earlier layer
    metadata `dlis.graph`: invalid type: integer `3`, expected a string at line 1 column 51
    metadata `dlis.graph`, layer `conv`: unknown field `extra`
    metadata `dlis.graph`: network `small`, layer `conv`: 0 groups do not divide 1 input and 2 output channels
    metadata `dlis.graph`, layer `conv`: invalid value: integer `-1`, expected usize
    metadata `dlis.graph`, layer `conv`: unknown variant `conv3d`, expected one of `conv2d`, `linear`, `batch_norm`, `activation`, `max_pool`, `avg_pool`, `global_avg_pool`, `add`, `concat`, `flatten`, `softmax`, `scale`
    metadata `dlis.graph`: network `small`, layer `conv`: the window Window { kernel: [0, 1], stride: [1, 1], padding: [0, 0, 0, 0], dilation: [1, 1] } is ill-formed or does not fit an input of 1x2x2
    metadata `dlis.graph`: network `small`, layer `conv`: a tensor would be empty or have more than 4294967296 elements
    metadata `dlis.graph`: network `small`, layer `conv`: the window Window { kernel: [1, 1], stride: [1, 1], padding: [18446744073709551615, 0, 1, 0], dilation: [1, 1] } is ill-formed or does not fit an input of 1x2x2
    metadata `dlis.graph`: network `small`, layer `conv`: a tensor would be empty or have more than 4294967296 elements
    metadata `dlis.graph`: network `small`, layer `bn`: batch-norm epsilon must be finite and not negative, found -1
    metadata `dlis.graph`: network `small`, layer `bn`: batch-norm epsilon must be finite and not negative, found inf
    metadata `dlis.graph`, layer `relu`: unknown field `axis`, softmax has none
    metadata `dlis.graph`: duplicate field `name` at line 1 column 18
    "##);
}

#[test]
fn graphs_larger_than_their_file_are_refused_before_anything_is_allocated() {
    // 2^32 weights are declared, 2 are there.
    let wide = graph_edited(|graph| {
        graph["layers"][0]["in_channels"] = (1u64 << 31).into();
        graph["input"] = json!([1u64 << 31, 1, 1]);
    });
    assert_eq!(message(&wide), "weight `conv.weight`: expected shape [2, 2147483648, 1, 1], found [2, 1, 1, 1]");
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let retype = |dtype: &str, shape: Json| {
        edited(|header| {
            header["conv.weight"]["dtype"] = dtype.into();
            header["conv.weight"]["shape"] = shape;
        })
    };
    let mut brain_floats = edited(|header| {
        for (_, info) in header.as_object_mut().unwrap().iter_mut().filter(|(key, _)| *key != "__metadata__") {
            info["dtype"] = "BF16".into();
            let halved = |at: usize| json!(info["data_offsets"][at].as_u64().unwrap() / 2);
            info["data_offsets"] = json!([halved(0), halved(1)]);
        }
    });
    brain_floats.truncate(brain_floats.len() - 20);
    // The last tensor of the file is `conv.weight`.
    let mut not_a_number = small();
    let at = not_a_number.len() - 4;
    not_a_number[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    insta::assert_snapshot!(messages(&[
        retype("I32", json!([2, 1, 1, 1])),
        brain_floats,
        retype("F32", json!([1, 2, 1, 1])),
        retype("F32", json!([2])),
        edited(|header| {
            let info = header.as_object_mut().unwrap().remove("conv.weight").unwrap();
            header["conv.bias"] = info;
        }),
        edited(|header| header["conv.num_batches_tracked"] = json!({"dtype": "I64", "shape": [0], "data_offsets": [0, 0]})),
        not_a_number,
    ]), @r##"
    tensor `conv.weight` is of type I32, expected F32 or F16
    tensor `conv.weight` is of type BF16, expected F32 or F16
    weight `conv.weight`: expected shape [2, 1, 1, 1], found [1, 2, 1, 1]
    weight `conv.weight`: expected shape [2, 1, 1, 1], found [2]
    weight `conv.weight` is missing: expected [2, 1, 1, 1]
    weight `conv.num_batches_tracked` belongs to no layer of `small`
    weight `conv.weight`: element 1 is NaN, expected a finite number
    "##);
}

#[test]
fn state_dictionaries_have_the_weights_of_the_graph_and_counters_only() {
    let load = |edit: &dyn Fn(&mut Json)| {
        let bytes = edited(edit);
        let graph = read(&small()).unwrap().network.graph().clone();
        let container = Container::open(Cursor::new(&bytes), bytes.len() as u64).unwrap();
        Artefact::read_state_dict(container, graph)
    };
    let counter = json!({"dtype": "I64", "shape": [0], "data_offsets": [0, 0]});
    let loaded = load(&|header| {
        header["bn.num_batches_tracked"] = counter.clone();
        header["__metadata__"] = json!({"format": "pt", "dlis.graph": "not read"});
    })
    .unwrap();
    assert_eq!(loaded.network, read(&small()).unwrap().network);
    assert_eq!(loaded.metadata, BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    let error = |name: &str| load(&|header| header[name] = counter.clone()).unwrap_err().to_string();
    insta::assert_snapshot!([error("conv.num_batches_tracked"), error("x.num_batches_tracked"), error("fc.weight")].join("\n"), @r##"
    weight `conv.num_batches_tracked` belongs to no layer of `small`
    weight `x.num_batches_tracked` belongs to no layer of `small`
    weight `fc.weight` belongs to no layer of `small`
    "##);
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = |result: Result<Artefact, ArtefactError>| {
        result.unwrap_err().to_string().replace(&folder.path().display().to_string(), "FOLDER")
    };
    std::fs::write(folder.path().join("short"), [0; 3]).unwrap();
    assert_eq!(text(Artefact::load(folder.path())), "FOLDER: expected a regular file");
    let short = text(Artefact::load(folder.path().join("short")));
    assert_eq!(short, "FOLDER/short: 3 bytes, expected at least the 8 of the header's length");
    let absent = text(Artefact::load(folder.path().join("absent")));
    assert!(absent.starts_with("FOLDER/absent: "), "{absent}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever happens to a valid file, reading it does not panic, and what can be read is an artefact:
    /// it can be written and read again.
    #[test]
    fn damage_never_panics(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
        whole in any::<bool>(),
    ) {
        let mut bytes = if whole { bytes_of(&sample()) } else { small() };
        for (at, byte, kind) in damage {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                // A digit for a digit keeps the header well-formed: sizes and offsets change.
                2 => if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + byte % 10;
                },
                _ if byte < 16 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        if let Ok(artefact) = read(&bytes) {
            let (graph, weights) = artefact.network.clone().into_parts();
            prop_assert!(Network::new(graph, weights).is_ok());
            prop_assert_eq!(read(&bytes_of(&artefact)).unwrap(), artefact);
        }
    }
}
