//! Every format with what can be wrong with it, in files that are made here.

use super::*;
use candle_core::{DType, Device, Tensor};
use stage::Kind;
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 0.5, -0.25, 0.0];

fn tensor() -> Tensor {
    Tensor::new(&[[1f32, 2.0, 3.0], [0.5, -0.25, 0.0]], &Device::Cpu).unwrap()
}

fn expected() -> Rows {
    Rows { keys: Vec::new(), count: 2, width: 3, values: VALUES.to_vec() }
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Reads a file of this name and content.
fn read_bytes(name: &str, bytes: &[u8], tensor: Option<&str>) -> Result<Rows> {
    let (_dir, path) = file(name, bytes);
    read(&path, Wanted { tensor, keyed: false })
}

/// What candle writes to a file of this name.
fn written(name: &str, write: impl FnOnce(&Path)) -> Vec<u8> {
    let (_dir, path) = file(name, b"");
    write(&path);
    std::fs::read(path).unwrap()
}

fn npy(header: &str, numbers: &[f32]) -> Vec<u8> {
    // Version 2 has a longer length field.
    let mut bytes = b"\x93NUMPY\x02\x00".to_vec();
    bytes.extend((header.len() as u32).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// A file of an array of another kind.
fn array(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {kind}, 'fortran_order': False, 'shape': ({shape}), }}\n");
    [npy(&header, &[]), data.to_vec()].concat()
}

/// Texts as NumPy stores them, of so many letters each.
fn texts(texts: &[&str], letters: usize) -> Vec<u8> {
    let padded = |text: &&str| text.chars().map(u32::from).chain([0; 9]).take(letters).collect::<Vec<_>>();
    texts.iter().flat_map(padded).flat_map(u32::to_le_bytes).collect()
}

fn npy_of(shape: &str, numbers: &[f32]) -> Vec<u8> {
    npy(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}\n"), numbers)
}

fn zipped(members: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn safetensors_of(tensors: &[(&str, Tensor)]) -> Vec<u8> {
    let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
    written("x.safetensors", |path| candle_core::safetensors::save(&tensors, path).unwrap())
}

#[test]
fn numpy_files_of_three_widths_and_both_orders_are_read() {
    for dtype in [DType::F16, DType::F32, DType::F64] {
        let bytes = written("x.npy", |path| tensor().to_dtype(dtype).unwrap().write_npy(path).unwrap());
        assert_eq!(read_bytes("x.npy", &bytes, None).unwrap(), expected(), "{dtype:?}");
    }
    // np.save of `x.T`.
    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
    let bytes = npy(header, &[1.0, 0.5, 2.0, -0.25, 3.0, 0.0]);
    assert_eq!(read_bytes("x.npy", &bytes, None).unwrap(), expected());
}

#[test]
fn numpy_archives_are_read_compressed_or_not() {
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let names = ("names.npy", array("'<U2'", "2,", &texts(&["Q2", "č"], 2)));
        let matrix = ("arr_0.npy", npy_of("2, 3", &VALUES));
        let bytes = zipped(&[names, matrix], method);
        let keyed = Rows { keys: vec!["Q2".into(), "č".into()], ..expected() };
        assert_eq!(read_bytes("x.npz", &bytes, None).unwrap(), keyed);
        let error = read_bytes("x.npz", &bytes, Some("names")).unwrap_err();
        assert!(
            error.to_string().ends_with("tensor `names` has shape [2], expected (entity, width)"),
            "{error}"
        );
        let bytes = zipped(
            &[("Q2.npy", npy_of("1, 3", &VALUES[..3])), ("Q1.npy", npy_of("1, 3", &VALUES[3..]))],
            method,
        );
        let rows = read_bytes("x.npz", &bytes, None).unwrap();
        assert_eq!(
            (rows.keys, rows.values),
            (vec!["Q1".into(), "Q2".into()], [&VALUES[3..], &VALUES[..3]].concat())
        );
    }
}

#[test]
fn safetensors_files_of_four_widths_are_read() {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let mask = tensor().get(0).unwrap();
        let bytes = safetensors_of(&[("a", tensor().to_dtype(dtype).unwrap()), ("mask", mask)]);
        assert_eq!(read_bytes("x.safetensors", &bytes, None).unwrap(), expected());
        assert_eq!(read_bytes("x.safetensors", &bytes, Some("a")).unwrap(), expected());
        let message = read_bytes("x.safetensors", &bytes, Some("b")).unwrap_err().to_string();
        assert!(message.ends_with("no tensor `b`, but a, mask"), "{message}");
    }
}

#[test]
fn one_vector_per_key_must_be_of_one_width() {
    let (long, short) = (tensor().get(0).unwrap(), tensor().get(1).unwrap());
    let rows =
        read_bytes("x.safetensors", &safetensors_of(&[("Q2", long.clone()), ("Q1", short.clone())]), None);
    assert_eq!(rows.unwrap().keys, ["Q1", "Q2"]);
    let narrow = short.narrow(0, 0, 2).unwrap();
    let error =
        read_bytes("x.safetensors", &safetensors_of(&[("Q2", long), ("Q1", narrow)]), None).unwrap_err();
    assert!(error.to_string().ends_with("`Q2` has 3 numbers, but `Q1` has 2"), "{error}");
    let two = safetensors_of(&[("a", tensor()), ("b", tensor())]);
    let error = read_bytes("x.safetensors", &two, None).unwrap_err();
    assert!(error.to_string().ends_with("2 tensors with two axes among a, b"), "{error}");
}

#[test]
fn headers_that_lie_are_errors_not_panics() {
    let lying = |shape: &str| read_bytes("x.npy", &npy_of(shape, &VALUES), None).unwrap_err().to_string();
    assert!(lying("4611686018427387904, 4").contains("truncated?"));
    assert!(lying("4, 3").contains("shape [4, 3] of 4 bytes each does not fit the 24 bytes"));
    assert!(lying("-1, 6").contains("(-1, 6)"));
    assert!(lying("2, 3, 1").contains("has shape [2, 3, 1], expected (entity, width)"));
    let header = |text: &str| read_bytes("x.npy", &npy(text, &VALUES), None).unwrap_err().to_string();
    assert!(header("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3), }").contains("<i8"));
    assert!(header("{'shape': (1, 3), }").contains("no numbers"));
    assert!(header("").contains("no shape"));
}

#[test]
fn truncated_files_are_errors_not_panics() {
    let torch = torch_file(&dictionary(&[("Q1", &[3], &[1], 0), ("Q2", &[3], &[1], 3)]), &VALUES);
    let files = [
        ("x.npy", npy_of("2, 3", &VALUES)),
        ("x.safetensors", safetensors_of(&[("a", tensor())])),
        ("x.npz", zipped(&[("a.npy", npy_of("2, 3", &VALUES))], CompressionMethod::Deflated)),
        ("x.pth", torch),
    ];
    for (name, bytes) in files {
        read_bytes(name, &bytes, None).unwrap();
        for length in 0..bytes.len() {
            let error = read_bytes(name, &bytes[..length], None).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{name}, {length} bytes: {error}");
        }
    }
}

#[test]
fn other_formats_are_refused_with_what_is_read() {
    let error = read_bytes("x.h5", b"", None).unwrap_err();
    assert!(error.to_string().contains("HDF5 is not read; features come from .npy, .npz"), "{error}");
    assert!(error.hint_text().unwrap().contains("h5py") && error.kind() == Kind::Usage);
    assert_eq!(read_bytes("x.csv", b"", None).unwrap_err().kind(), Kind::Usage);
}

/// A pickle as `torch.save` writes it, protocol 2, of one float tensor in storage `0`.
fn rebuild(shape: &[u8], strides: &[u8], offset: u8) -> Vec<u8> {
    rebuild_as("FloatStorage", shape, strides, offset, b"")
}

/// The same of another storage, and with one more argument.
fn rebuild_as(storage: &str, shape: &[u8], strides: &[u8], offset: u8, more: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        [b"(".to_vec(), numbers.iter().flat_map(|n| [b'K', *n]).collect(), b"t".to_vec()].concat()
    };
    let mut bytes = b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    bytes.extend(
        [unicode("storage"), format!("ctorch\n{storage}\n").into_bytes(), unicode("0"), unicode("cpu")]
            .concat(),
    );
    bytes.extend(b"K\x06tQ");
    bytes.extend([b'K', offset]);
    bytes.extend([tuple(shape), tuple(strides)].concat());
    bytes.extend([b"\x89ccollections\nOrderedDict\n)R", more, b"tR"].concat());
    bytes
}

fn unicode(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

type Described<'a> = (&'a str, &'a [u8], &'a [u8], u8);

fn dictionary(tensors: &[Described]) -> Vec<u8> {
    let entry = |(name, shape, strides, offset): &Described| {
        [unicode(name), rebuild(shape, strides, *offset)].concat()
    };
    [b"}(".to_vec(), tensors.iter().flat_map(entry).collect(), b"u".to_vec()].concat()
}

fn torch_file(object: &[u8], numbers: &[f32]) -> Vec<u8> {
    let pickle = [b"\x80\x02", object, b"."].concat();
    let numbers = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    zipped(&[("archive/data.pkl", pickle), ("archive/data/0", numbers)], CompressionMethod::Stored)
}

#[test]
fn pytorch_tensors_are_read_alone_or_by_name_in_any_layout() {
    let alone = torch_file(&rebuild(&[2, 3], &[3, 1], 0), &VALUES);
    assert_eq!(read_bytes("x.pt", &alone, None).unwrap(), expected());
    // `x.T`, and every second number of a longer storage, from the third on.
    let turned = torch_file(&rebuild(&[2, 3], &[1, 2], 0), &[1.0, 0.5, 2.0, -0.25, 3.0, 0.0]);
    assert_eq!(read_bytes("x.pth", &turned, None).unwrap(), expected());
    let sparse: Vec<f32> = [9.0, 9.0].into_iter().chain(VALUES.iter().flat_map(|x| [*x, 9.0])).collect();
    let strided = torch_file(&rebuild(&[2, 3], &[6, 2], 2), &sparse);
    assert_eq!(read_bytes("x.pkl", &strided, None).unwrap(), expected());
    let named = torch_file(&dictionary(&[("Q2", &[3], &[1], 0), ("Q1", &[3], &[1], 3)]), &VALUES);
    assert_eq!(read_bytes("x.pth", &named, None).unwrap().keys, ["Q1", "Q2"]);
}

/// An archive with more members.
fn torch_file_with(object: &[u8], members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pickle = ("archive/data.pkl", [b"\x80\x02", object, b"."].concat());
    let members: Vec<_> = [pickle].into_iter().chain(members.iter().cloned()).collect();
    zipped(&members, CompressionMethod::Stored)
}

#[test]
fn negative_views_and_other_byte_orders_of_pytorch_are_read_as_they_are() {
    let neg = [b"}".to_vec(), unicode("neg"), b"\x88s".to_vec()].concat();
    let negated = torch_file(&rebuild_as("FloatStorage", &[2, 3], &[3, 1], 0, &neg), &VALUES.map(|x| -x));
    assert_eq!(read_bytes("x.pt", &negated, None).unwrap(), expected());
    let numbers: Vec<u8> = VALUES.iter().flat_map(|x| x.to_be_bytes()).collect();
    let file = |order: &str| {
        let members = [("archive/byteorder", order.into()), ("archive/data/0", numbers.clone())];
        read_bytes("x.pt", &torch_file_with(&rebuild(&[2, 3], &[3, 1], 0), &members), None)
    };
    assert_eq!(file("big").unwrap(), expected());
    assert_ne!(file("little").unwrap(), expected());
    assert!(file("middle").unwrap_err().to_string().contains("byte order is `middle`"));
    let big = array("'>f4'", "2, 3", &numbers);
    assert_eq!(read_bytes("x.npy", &big, None).unwrap(), expected());
}

#[test]
fn the_parameters_of_a_module_and_checkpoints_are_read() {
    let ordered = b"ccollections\nOrderedDict\n)R".to_vec();
    let metadata = [b"}".to_vec(), unicode("_metadata"), ordered.clone(), b"sb".to_vec()].concat();
    let weight = [b"(".to_vec(), unicode("weight"), rebuild(&[2, 3], &[3, 1], 0), b"u".to_vec()].concat();
    let module = [ordered, weight.clone(), metadata].concat();
    assert_eq!(read_bytes("x.pt", &torch_file(&module, &VALUES), None).unwrap(), expected());
    // A dictionary in a dictionary, beside a number and something that only Python knows.
    let alien = b"cmy.own\nClass\n)R".to_vec();
    let inner = [b"}".to_vec(), weight].concat();
    let entries = |entries: &[(&str, &[u8])]| -> Vec<u8> {
        let entries = entries.iter().map(|(name, value)| [unicode(name), value.to_vec()].concat());
        [b"}(".to_vec(), entries.flatten().collect(), b"u".to_vec()].concat()
    };
    let plain = torch_file(&entries(&[("epoch", b"K\x03"), ("state", &inner)]), &VALUES);
    assert_eq!(read_bytes("x.pt", &plain, None).unwrap(), expected());
    let checkpoint = torch_file(&entries(&[("state", &inner), ("optimiser", &alien)]), &VALUES);
    assert_eq!(read_bytes("x.pt", &checkpoint, Some("state.weight")).unwrap(), expected());
    assert!(
        read_bytes("x.pt", &checkpoint, None)
            .unwrap_err()
            .to_string()
            .contains("`optimiser` is no plain tensor")
    );
    let names = [b"](".to_vec(), unicode("Q2"), unicode("Q1"), b"e".to_vec()].concat();
    let named =
        torch_file(&entries(&[("features", &rebuild(&[2, 3], &[3, 1], 0)), ("names", &names)]), &VALUES);
    assert_eq!(read_bytes("x.pt", &named, Some("features")).unwrap().keys, ["Q2", "Q1"]);
}

#[test]
fn what_stands_beside_a_matrix_is_used_or_refused() {
    let matrix = || ("features.npy", npy_of("2, 3", &VALUES));
    let beside = |array: Vec<u8>| {
        read_bytes("x.npz", &zipped(&[matrix(), ("ids.npy", array)], CompressionMethod::Stored), None)
    };
    let whole = |numbers: &[i64]| {
        array("'<i8'", "2,", &numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>())
    };
    for nothing in [whole(&[0, 1]), whole(&[1, 1]), npy_of("2,", &VALUES[..2])] {
        assert_eq!(beside(nothing).unwrap(), expected());
    }
    for (array, what) in [(whole(&[5, 0]), "a whole number"), (array("'|O'", "2,", b"\x80\x03N."), "objects")]
    {
        let error = beside(array).unwrap_err();
        assert!(error.to_string().contains("`ids` beside the rows holds"), "{error}");
        assert!(error.to_string().contains(what) && error.hint_text().unwrap().contains("`keys`"), "{error}");
    }
    assert_eq!(beside(array("'|S3'", "2,", b"Q2\0Q10")).unwrap().keys, ["Q2", "Q10"]);
    let (_dir, path) =
        file("x.npz", &zipped(&[matrix(), ("ids.npy", whole(&[5, 0]))], CompressionMethod::Stored));
    assert_eq!(read(&path, Wanted { tensor: None, keyed: true }).unwrap(), expected());
    let ids = Tensor::new(&[7i64, 3], &Device::Cpu).unwrap();
    let error =
        read_bytes("x.safetensors", &safetensors_of(&[("a", tensor()), ("ids", ids)]), None).unwrap_err();
    assert!(error.to_string().contains("`ids` beside the rows"), "{error}");
    let ids = rebuild_as("LongStorage", &[2], &[1], 0, b"");
    let both =
        [b"}(".to_vec(), unicode("a"), rebuild(&[2, 3], &[3, 1], 0), unicode("ids"), ids, b"u".to_vec()]
            .concat();
    assert!(
        read_bytes("x.pt", &torch_file(&both, &VALUES), None)
            .unwrap_err()
            .to_string()
            .contains("`ids` beside")
    );
}

#[test]
fn every_refusal_says_what_would_be_read() {
    let hint = |name: &str, bytes: &[u8], part: &str| {
        let error = read_bytes(name, bytes, None).unwrap_err();
        assert!(
            error.hint_text().unwrap_or_default().contains(part),
            "{part}: {error} {:?}",
            error.hint_text()
        );
    };
    hint("x.npy", &array("'|O'", "2,", b"\x80\x03N."), "np.stack");
    hint("x.npy", &array("'|O'", "", b"\x80\x03N."), ".item()");
    hint("x.npy", &array("[('a', '<f4'), ('b', '<f4')]", "2,", &[0; 16]), "structured");
    hint("x.npy", &array("'|V2'", "2, 3", &[0; 12]), "bfloat16");
    hint("x.npy", &array("'<i8'", "2, 3", &[0; 48]), "astype");
    hint("x.npy", &npy_of("2, 1, 3", &VALUES), "reshape(len(features), -1)");
    hint("x.npy", &npy_of("6,", &VALUES), "reshape(-1, 1)");
    hint("x.pkl", b"\x80\x04\x95.", "pickle.load");
    hint(
        "x.pt",
        &torch_file(&[b"](".to_vec(), rebuild(&[3], &[1], 0), b"e".to_vec()].concat(), &VALUES),
        "torch.stack",
    );
    hint("x.pt", &torch_file(&rebuild_as("LongStorage", &[1, 3], &[3, 1], 0, b""), &VALUES), ".float()");
    let by_id = [b"}(".to_vec(), b"K\x00".to_vec(), rebuild(&[3], &[1], 0), b"u".to_vec()].concat();
    hint("x.pt", &torch_file(&by_id, &VALUES), "torch.stack([features[i]");
    let none = read_bytes("x.safetensors", &safetensors_of(&[]), None).unwrap_err().to_string();
    assert!(none.ends_with("no tensors at all"), "{none}");
    let (_dir, path) = file("x.npy", &npy_of("2, 3", &VALUES));
    assert_eq!(read(&path, Wanted { tensor: Some("a"), keyed: false }).unwrap_err().kind(), Kind::Usage);
    let nan = joined(&rows(&[1.0, f32::NAN, 0.0, 0.0, 1.0, 1.0]), BY_ID).unwrap_err();
    assert!(nan.hint_text().unwrap().contains("nan_to_num"));
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("witness");
    let command = format!("touch {}", witness.display());
    let call = [b"cos\nsystem\n(".to_vec(), unicode(&command), b"tR".to_vec()].concat();
    let named = [b"}(".to_vec(), unicode("Q1"), call.clone(), b"u".to_vec()].concat();
    for object in [call, named] {
        let error = read_bytes("x.pth", &torch_file(&object, &VALUES), None).unwrap_err();
        assert!(error.to_string().contains("is no plain tensor, and nothing else is read"), "{error}");
    }
    assert!(!witness.exists());
    let bare = read_bytes("x.pkl", b"\x80\x04\x95.", None).unwrap_err();
    assert!(bare.to_string().ends_with("not a file that torch.save wrote since PyTorch 1.6"), "{bare}");
}

#[test]
fn descriptions_that_lie_are_errors_not_panics() {
    let too_long = torch_file(&rebuild(&[200, 3], &[3, 1], 0), &VALUES);
    let error = read_bytes("x.pth", &too_long, None).unwrap_err();
    assert!(error.to_string().contains("needs 2400 bytes of numbers, there are 24: truncated?"), "{error}");
    // Too few arguments, strides that do not fit the axes, none at all.
    let empty = b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec();
    for object in [empty, rebuild(&[2, 3], &[3], 0), rebuild(&[], &[], 0), b"}".to_vec(), Vec::new()] {
        let error = read_bytes("x.pth", &torch_file(&object, &VALUES), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{error}");
    }
}

fn entities() -> Vec<Entity> {
    ["Q1", "Q2", "Q3"].map(|key| Entity { key: key.into(), ..Entity::default() }).to_vec()
}

fn rows(values: &[f32]) -> Rows {
    Rows { keys: Vec::new(), count: values.len() / 2, width: 2, values: values.to_vec() }
}

const BY_ID: Mapping = Mapping { keys: None, unknown: UnknownKeys::Refuse, zero_is_absent: true };

fn joined(rows: &Rows, mapping: Mapping) -> Result<FeatureTable> {
    join(rows, Path::new("x.npy"), mapping, &entities())
}

fn with_keys(text: &str, values: &[f32], unknown: UnknownKeys) -> Result<FeatureTable> {
    let (_dir, keys) = file("keys.txt", text.as_bytes());
    joined(&rows(values), Mapping { keys: Some(&keys), unknown, ..BY_ID })
}

#[test]
fn rows_are_in_the_order_of_ids() {
    let three = rows(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
    let table = joined(&three, BY_ID).unwrap();
    assert_eq!((table.row(2), table.present.as_slice()), ([3.0, 4.0].as_slice(), &[true, false, true][..]));
    let table = joined(&three, Mapping { zero_is_absent: false, ..BY_ID }).unwrap();
    assert_eq!(table.coverage(), 1.0);
}

#[test]
fn rows_are_named_by_keys() {
    for text in ["Q3\r\nQ1\r\n", "\u{feff}Q3 \n\nQ1\n\n", "Q3\nQ1"] {
        let table = with_keys(text, &[1.0, 2.0, 3.0, 4.0], UnknownKeys::Refuse).unwrap();
        assert_eq!((table.row(0), table.row(2)), ([3.0, 4.0].as_slice(), [1.0, 2.0].as_slice()), "{text:?}");
        assert_eq!(table.present, [true, false, true]);
    }
    let named = Rows { keys: vec!["Q3".into(), "Q2".into()], ..rows(&[1.0, 2.0, 3.0, 4.0]) };
    let table = joined(&named, BY_ID).unwrap();
    assert_eq!((table.row(1), table.row(2)), ([3.0, 4.0].as_slice(), [1.0, 2.0].as_slice()));
    let twice = joined(&named, Mapping { keys: Some(Path::new("k")), ..BY_ID }).unwrap_err();
    assert_eq!(twice.kind(), Kind::Usage);
}

#[test]
fn unknown_keys_are_named_with_their_line_or_skipped() {
    let error = with_keys("Q1\nQ9\nQ8\n", &[1.0; 6], UnknownKeys::Refuse).unwrap_err();
    assert!(error.to_string().ends_with("keys.txt: line 2: no entity has the key `Q9`"), "{error}");
    let hint = error.hint_text().unwrap();
    assert!(
        hint.starts_with("of the graph's keys they are like `Q1`; of 3 keys, 2 are no entity's"),
        "{hint}"
    );
    let table = with_keys("Q9\nQ2\n", &[1.0, 1.0, 2.0, 2.0], UnknownKeys::Skip).unwrap();
    assert_eq!((table.row(1), table.count_present()), ([2.0, 2.0].as_slice(), 1));
    let error = with_keys("Q8\nQ9\n", &[1.0; 4], UnknownKeys::Skip).unwrap_err();
    assert!(error.to_string().contains("none of 2 rows"), "{error}");
    let error = with_keys("Q1\nQ2\nQ1\n", &[1.0; 6], UnknownKeys::Skip).unwrap_err();
    assert!(
        error.to_string().ends_with("keys.txt: line 3: key `Q1` stands twice, first as number 1"),
        "{error}"
    );
}

#[test]
fn differing_numbers_of_rows_are_both_named() {
    let message = with_keys("Q1\n", &[1.0; 4], UnknownKeys::Refuse).unwrap_err().to_string();
    assert!(
        message.starts_with("x.npy: 2 rows, but ") && message.ends_with(" names 1 entities"),
        "{message}"
    );
    let error = joined(&rows(&[1.0; 4]), BY_ID).unwrap_err();
    assert_eq!(error.to_string(), "x.npy: 2 rows, but the graph has 3 entities");
}

#[test]
fn a_number_that_is_not_finite_is_named_with_its_row() {
    let error = joined(&rows(&[1.0, 2.0, 0.0, f32::NAN, 3.0, 4.0]), BY_ID).unwrap_err();
    assert_eq!(error.to_string(), "x.npy: row 1: column 1 is NaN, not a finite 32-bit number");
}

#[test]
fn nothing_but_zeros_is_refused() {
    let error = joined(&rows(&[0.0; 6]), BY_ID).unwrap_err();
    assert!(error.to_string().contains("none of 3 rows is one's and not zero"), "{error}");
}
