//! Every format, and the errors that each can have, in files that these tests make.

use super::*;
use stage::Kind;
use std::io::Write;
use std::path::PathBuf;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const VALUES: [f32; 6] = [1.0, 2.0, 3.0, 0.5, -0.25, 0.0];
/// The same numbers, column by column.
const TURNED: [f32; 6] = [1.0, 0.5, 2.0, -0.25, 3.0, 0.0];

fn tensor() -> Tensor {
    Tensor::new(&[[1f32, 2.0, 3.0], [0.5, -0.25, 0.0]], &Device::Cpu).unwrap()
}

fn expected() -> GivenRows {
    GivenRows { keys: Vec::new(), count: 2, width: 3, values: VALUES.to_vec() }
}

fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

fn read_file(name: &str, bytes: &[u8], tensor: Option<&str>) -> Result<GivenRows> {
    let (_dir, path) = file(name, bytes);
    read(&path, Wanted { tensor, keyed: false })
}

/// The bytes that candle writes to a file with this name.
fn written(name: &str, write: impl FnOnce(&Path)) -> Vec<u8> {
    let (_dir, path) = file(name, b"");
    write(&path);
    std::fs::read(path).unwrap()
}

fn bytes_of<T: bytemuck::NoUninit>(numbers: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(numbers).to_vec()
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    // Version 2 has a longer length field.
    [b"\x93NUMPY\x02\x00", &(header.len() as u32).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// A file of an array of any kind.
fn array(kind: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    npy(&format!("{{'descr': {kind}, 'fortran_order': False, 'shape': ({shape}), }}\n"), data)
}

/// Texts as NumPy stores them, `letters` letters each.
fn texts(texts: &[&str], letters: usize) -> Vec<u8> {
    let padded = texts.iter().flat_map(|text| text.chars().map(u32::from).chain([0; 9]).take(letters));
    padded.flat_map(u32::to_le_bytes).collect()
}

fn npy_of(shape: &str, numbers: &[f32]) -> Vec<u8> {
    array("'<f4'", shape, &bytes_of(numbers))
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

/// A pickle of one float tensor in storage `0`, as `torch.save` writes it with protocol 2.
fn rebuild(shape: &[u8], strides: &[u8], offset: u8) -> Vec<u8> {
    rebuild_as("FloatStorage", shape, strides, offset, b"")
}

/// The same pickle for another storage, and with one more argument.
fn rebuild_as(storage: &str, shape: &[u8], strides: &[u8], offset: u8, more: &[u8]) -> Vec<u8> {
    let tuple = |numbers: &[u8]| {
        [b"(".to_vec(), numbers.iter().flat_map(|n| [b'K', *n]).collect(), b"t".to_vec()].concat()
    };
    let parts = [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        unicode("storage"),
        format!("ctorch\n{storage}\n").into_bytes(),
        unicode("0"),
        unicode("cpu"),
        [b"K\x06tQK".as_slice(), &[offset]].concat(),
        tuple(shape),
        tuple(strides),
        [b"\x89ccollections\nOrderedDict\n)R", more, b"tR"].concat(),
    ];
    parts.concat()
}

fn unicode(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn torch_file(object: &[u8], numbers: &[f32]) -> Vec<u8> {
    torch_file_with(object, &[("archive/data/0", bytes_of(numbers))])
}

fn dictionary(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries = entries.iter().map(|(name, value)| [unicode(name), value.to_vec()].concat());
    [b"}(".to_vec(), entries.flatten().collect(), b"u".to_vec()].concat()
}

/// The pickle of the whole matrix as one tensor.
fn whole() -> Vec<u8> {
    rebuild(&[2, 3], &[3, 1], 0)
}

/// The pickle of one tensor with three numbers of the matrix.
fn row(offset: u8) -> Vec<u8> {
    rebuild(&[3], &[1], offset)
}

fn torch_file_with(object: &[u8], members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let pickle = ("archive/data.pkl", [b"\x80\x02", object, b"."].concat());
    let members: Vec<_> = [pickle].into_iter().chain(members.iter().cloned()).collect();
    zipped(&members, CompressionMethod::Stored)
}

/// An archive with the matrix and another array.
fn with_ids(ids: Vec<u8>) -> Vec<u8> {
    zipped(&[("features.npy", npy_of("2, 3", &VALUES)), ("ids.npy", ids)], CompressionMethod::Stored)
}

/// PyTorch files of the matrix in every layout: description, content, and the tensor's name where it is needed.
fn torch_files() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let sparse: Vec<f32> = [9.0, 9.0].into_iter().chain(VALUES.iter().flat_map(|x| [*x, 9.0])).collect();
    let neg = [b"}".to_vec(), unicode("neg"), b"\x88s".to_vec()].concat();
    let negated = rebuild_as("FloatStorage", &[2, 3], &[3, 1], 0, &neg);
    let ordered = b"ccollections\nOrderedDict\n)R".to_vec();
    let metadata = [b"}".to_vec(), unicode("_metadata"), ordered.clone(), b"sb".to_vec()].concat();
    let weight = [b"(".to_vec(), unicode("weight"), whole(), b"u".to_vec()].concat();
    let inner = [b"}".to_vec(), weight.clone()].concat();
    let big = bytes_of(&VALUES.map(f32::to_be_bytes));
    let big = [("archive/byteorder", b"big".to_vec()), ("archive/data/0", big)];
    let nested = dictionary(&[("epoch", b"K\x03"), ("state", &inner)]);
    let alien = dictionary(&[("state", &inner), ("optimiser", b"cmy.own\nClass\n)R")]);
    vec![
        ("alone", torch_file(&whole(), &VALUES), None),
        ("x.T", torch_file(&rebuild(&[2, 3], &[1, 2], 0), &TURNED), None),
        ("every second number from the third", torch_file(&rebuild(&[2, 3], &[6, 2], 2), &sparse), None),
        ("a negative view", torch_file(&negated, &VALUES.map(|x| -x)), None),
        ("of a big-endian machine", torch_file_with(&whole(), &big), None),
        ("the parameters of a module", torch_file(&[ordered, weight, metadata].concat(), &VALUES), None),
        ("in a dictionary in a dictionary, beside a number", torch_file(&nested, &VALUES), None),
        ("beside something that only Python knows", torch_file(&alien, &VALUES), Some("state.weight")),
    ]
}

#[test]
fn the_matrix_is_read_from_every_format() {
    let mut files = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let cast = tensor().to_dtype(dtype).unwrap();
        let beside = [("a", cast.clone()), ("mask", tensor().get(0).unwrap())];
        files.push((dtype.as_str(), "x.safetensors", safetensors_of(&beside), None));
        files.push((dtype.as_str(), "x.safetensors", safetensors_of(&beside), Some("a")));
        if dtype != DType::BF16 {
            let saved = written("x.npy", |path| cast.write_npy(path).unwrap());
            files.push((dtype.as_str(), "x.npy", saved, None));
        }
    }
    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n";
    files.push(("np.save of x.T", "x.npy", npy(header, &bytes_of(&TURNED)), None));
    let big = bytes_of(&VALUES.map(f32::to_be_bytes));
    files.push(("big-endian", "x.npy", array("'>f4'", "2, 3", &big), None));
    for nothing in [bytes_of(&[0i64, 1]), bytes_of(&[1i64, 1])] {
        files.push(("ids that say nothing", "x.npz", with_ids(array("'<i8'", "2,", &nothing)), None));
    }
    files.push(("one number for each row", "x.npz", with_ids(npy_of("2,", &VALUES[3..5])), None));
    files.extend(torch_files().into_iter().map(|(what, bytes, tensor)| (what, "x.pt", bytes, tensor)));
    for (what, name, bytes, tensor) in files {
        let rows = read_file(name, &bytes, tensor).unwrap_or_else(|e| panic!("{name}, {what}: {e}"));
        assert_eq!(rows, expected(), "{name}, {what}");
    }
    let (_dir, path) = file("x.npz", &with_ids(array("'<i8'", "2,", &bytes_of(&[5i64, 0]))));
    assert_eq!(read(&path, Wanted { tensor: None, keyed: true }).unwrap(), expected());
    let (ids, names) = (array("'<i8'", "2, 1", &bytes_of(&[5i64, 0])), texts(&["Q2", "Q1"], 2));
    let error = read_file("x.npz", &with_ids(ids), Some("features")).unwrap_err();
    assert!(error.to_string().contains("`ids` beside the rows holds a whole number"), "{error}");
    let named = with_ids(array("'<U2'", "2, 1", &names));
    assert_eq!(read_file("x.npz", &named, Some("features")).unwrap().keys, ["Q2", "Q1"]);
}

#[test]
fn keys_are_read_beside_a_matrix_or_as_names() {
    let names = array("'<U2'", "2,", &texts(&["Q2", "č"], 2));
    let beside = [("names.npy", names), ("a.npy", npy_of("2, 3", &VALUES))];
    let [first, second] = [0, 3].map(|i| npy_of("1, 3", &VALUES[i..][..3]));
    let rows = zipped(&[("Q3.npy", second), ("Q2.npy", first)], CompressionMethod::Deflated);
    let [long, short] = [0, 1].map(|i| tensor().get(i).unwrap());
    let list_of_keys = [b"](".to_vec(), unicode("Q2"), unicode("Q1"), b"e".to_vec()].concat();
    let listed = dictionary(&[("features", &whole()), ("names", &list_of_keys)]);
    let files = [
        ("x.npz", zipped(&beside, CompressionMethod::Stored), ["Q2", "č"]),
        ("x.npz", zipped(&beside, CompressionMethod::Deflated), ["Q2", "č"]),
        ("x.npz", with_ids(array("'|S3'", "2,", b"Q2\0Q10")), ["Q2", "Q10"]),
        ("x.npz", rows, ["Q2", "Q3"]),
        ("x.safetensors", safetensors_of(&[("Q3", short), ("Q2", long)]), ["Q2", "Q3"]),
        ("x.pt", torch_file(&listed, &VALUES), ["Q2", "Q1"]),
        ("x.pt", torch_file(&dictionary(&[("Q3", &row(3)), ("Q2", &row(0))]), &VALUES), ["Q2", "Q3"]),
    ];
    for (name, bytes, keys) in files {
        let keyed = GivenRows { keys: keys.map(str::to_owned).to_vec(), ..expected() };
        assert_eq!(read_file(name, &bytes, None).unwrap(), keyed, "{name} {keys:?}");
    }
}

/// A refused file: its content, a part of the message, and a part of the hint.
type Refused = (Vec<u8>, &'static str, &'static str);

fn refused_npy() -> Vec<Refused> {
    let two_axes = "expected (entity, width)";
    vec![
        (array("'|O'", "2,", b"\x80\x03N."), "holds |O", "np.stack"),
        (array("'|O'", "", b"\x80\x03N."), "holds |O", ".item()"),
        (array("[('a', '<f4'), ('b', '<f4')]", "2,", &[0; 16]), "not f2, f4 or f8", "structured"),
        (array("'|V2'", "2, 3", &[0; 12]), "holds |V2", "bfloat16"),
        (array("'<i8'", "2, 3", &[0; 48]), "holds i64", "astype"),
        (array("'<U1'", "2, 3", &[0; 24]), "holds texts", "keys"),
        (npy_of("2, 1, 3", &VALUES), two_axes, "reshape(len(features), -1)"),
        (npy_of("6,", &VALUES), two_axes, "reshape(-1, 1)"),
        (npy_of("4611686018427387904, 4", &VALUES), "truncated?", ""),
        (npy_of("4, 3", &VALUES), "shape [4, 3] of 4 bytes each does not fit the 24 bytes", ""),
        (npy_of("-1, 6", &VALUES), "(-1, 6)", ""),
        (npy_of("1, 2", &[0.0, f32::NAN]), "row 0: column 1 is NaN, not a finite 32-bit", "np.nan_to_num"),
        (npy_of("2, 1", &[0.0, f32::INFINITY]), "row 1: column 0 is inf, not", "divide the features"),
        (npy("{'shape': (1, 3), }", &[]), "no numbers", ""),
        (npy("", &[]), "no shape", ""),
    ]
}

fn refused_torch() -> Vec<Refused> {
    let whole_ids = rebuild_as("LongStorage", &[2], &[1], 0, b"");
    let both = dictionary(&[("a", &whole()), ("ids", &whole_ids)]);
    let beside = |ids: &[u8]| torch_file(&dictionary(&[("a", &whole()), ("ids", ids)]), &VALUES);
    let ids_of = dictionary(&[("Q2", b"K\x00"), ("Q1", b"K\x01")]);
    let keys_of =
        [b"}(K\x00".to_vec(), unicode("Q2"), b"K\x01".to_vec(), unicode("Q1"), b"u".to_vec()].concat();
    let with_none = [b"](".to_vec(), unicode("Q2"), b"Ne".to_vec()].concat();
    let not_read = "`ids` beside the rows holds something that is not read";
    let alien = dictionary(&[("state", &whole()), ("optimiser", b"cmy.own\nClass\n)R")]);
    let by_id = [b"}(K\x00".to_vec(), row(0), b"u".to_vec()].concat();
    let listed = [b"](".to_vec(), row(0), b"e".to_vec()].concat();
    let order = [("archive/byteorder", b"middle".to_vec()), ("archive/data/0", vec![0; 24])];
    vec![
        (torch_file(&listed, &VALUES), "a list", "torch.stack"),
        (torch_file(&rebuild_as("LongStorage", &[1, 3], &[3, 1], 0, b""), &VALUES), "holds i64", ".float()"),
        (torch_file(&by_id, &VALUES), "whole numbers", "{str(key): row for"),
        (torch_file(&by_id, &VALUES), "whole numbers", "torch.stack([features[i]"),
        (
            torch_file(&[b"}(".to_vec(), whole(), b"Nu".to_vec()].concat(), &VALUES),
            "a key that is no text",
            "str(key)",
        ),
        (torch_file(b"\x95junk", &VALUES), "damaged", "without pickle_protocol"),
        (torch_file(&alien, &VALUES), "`optimiser` is no plain tensor", "torch.save"),
        (torch_file(&both, &VALUES), "`ids` beside the rows holds a whole number", "`keys`"),
        (beside(&ids_of), not_read, "`keys`"),
        (beside(&keys_of), not_read, "`keys`"),
        (beside(&with_none), not_read, "`keys`"),
        (beside(b"](G@\x14\0\0\0\0\0\0K\x00e"), "`ids` beside the rows holds a whole number", "`keys`"),
        (torch_file_with(&whole(), &order), "byte order is `middle`", ""),
        (torch_file(&rebuild(&[200, 3], &[3, 1], 0), &VALUES), "needs 2400 bytes of numbers, there", ""),
        // Too few arguments, strides that do not fit the axes, no arguments.
        (torch_file(b"ctorch._utils\n_rebuild_tensor_v2\n)R", &VALUES), "", ""),
        (torch_file(&rebuild(&[2, 3], &[3], 0), &VALUES), "", ""),
        (torch_file(&rebuild(&[], &[], 0), &VALUES), "", ""),
        (torch_file(b"}", &VALUES), "no tensors at all", ""),
        (torch_file(b"", &VALUES), "damaged", ""),
        (b"\x80\x04\x95.".to_vec(), "not a file that torch.save wrote since PyTorch 1.6", "pickle.load"),
    ]
}

#[test]
fn refusals_name_the_file_and_say_what_would_be_read() {
    let [long, short] = [0, 1].map(|i| tensor().get(i).unwrap());
    let deep = ("tokens", tensor().reshape((2, 1, 3)).unwrap());
    let widths = [("Q2", long), ("Q1", short.narrow(0, 0, 2).unwrap())];
    let ids = ("ids", Tensor::new(&[7i64, 3], &Device::Cpu).unwrap());
    let header = r#"{"__metadata__":{"ids":"[\"Q2\",\"Q1\"]"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}"#;
    let with_metadata =
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &bytes_of(&VALUES)].concat();
    let safetensors = vec![
        (with_metadata, "`ids` beside the rows holds something that is not read", "`keys`"),
        (safetensors_of(&[("a", tensor()), ids]), "`ids` beside the rows", "`keys`"),
        (safetensors_of(&widths), "`Q2` has 3 numbers, but `Q1` has 2", ""),
        (safetensors_of(&[("a", tensor()), ("b", tensor())]), "two axes or more among a, b", "`tensor`"),
        (safetensors_of(&[("mask", tensor()), deep]), "two axes or more among mask, tokens", "`tensor`"),
        (safetensors_of(&[]), "no tensors at all", ""),
    ];
    let [numbers, objects] =
        [array("'<i8'", "2,", &bytes_of(&[5i64, 0])), array("'|O'", "2,", b"\x80\x03N.")];
    let npz = vec![
        (with_ids(npy_of("2,", &[5.0, 0.0])), "`ids` beside the rows holds a whole number", "`keys`"),
        (with_ids(numbers), "`ids` beside the rows holds a whole number", "`keys`"),
        (with_ids(objects), "`ids` beside the rows holds something that is not read", "`keys`"),
    ];
    let files = [
        ("x.npy", refused_npy()),
        ("x.npz", npz),
        ("x.safetensors", safetensors),
        ("x.pth", refused_torch()),
    ];
    let files = files.into_iter().flat_map(|(name, files)| files.into_iter().map(move |file| (name, file)));
    for (name, (bytes, message, hint)) in files {
        let error = read_file(name, &bytes, None).expect_err(message);
        let (said, help) = (error.to_string(), error.hint_text().unwrap_or_default());
        assert!(said.contains(name) && said.contains(message) && help.contains(hint), "{said}; {help}");
        assert_eq!(error.kind(), Kind::Data, "{said}");
    }
    for (name, tensor, message) in [
        ("x.h5", None, "HDF5 is not read; features come from .npy, .npz"),
        ("x.csv", None, "features are read from .npy"),
        ("x.npy", Some("a"), "one array without a name"),
    ] {
        let error = read_file(name, &npy_of("2, 3", &VALUES), tensor).unwrap_err();
        assert!(error.kind() == Kind::Usage && error.to_string().contains(message), "{error}");
    }
    for (table, said) in [
        (
            array("'<U2'", "2, 2", &texts(&["Q2", "0", "Q1", "1"], 2)),
            "`ids` beside the rows holds several texts for each",
        ),
        (
            array("'<i8'", "2, 2", &bytes_of(&[5i64, 0, 7, 1])),
            "`ids` beside the rows holds a whole number for each",
        ),
    ] {
        let message = read_file("x.npz", &with_ids(table), Some("features")).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    let names = b"cnumpy.core.multiarray\n_reconstruct\n)R".as_slice();
    let named = torch_file(&dictionary(&[("a", &whole()), ("names", names)]), &VALUES);
    let message = read_file("x.pt", &named, Some("a")).unwrap_err().to_string();
    assert!(message.contains("`names` beside the rows holds something that is not read"), "{message}");
    let files = safetensors_of(&[("a", tensor()), ("mask", tensor().get(0).unwrap())]);
    let message = read_file("x.safetensors", &files, Some("b")).unwrap_err().to_string();
    assert!(message.ends_with("no tensor `b`, but a, mask"), "{message}");
}

#[test]
fn truncated_files_are_errors_not_panics() {
    let files = [
        ("x.npy", npy_of("2, 3", &VALUES)),
        ("x.safetensors", safetensors_of(&[("a", tensor())])),
        ("x.npz", zipped(&[("a.npy", npy_of("2, 3", &VALUES))], CompressionMethod::Deflated)),
        ("x.pth", torch_file(&dictionary(&[("Q1", &row(0)), ("Q2", &row(3))]), &VALUES)),
    ];
    for (name, bytes) in files {
        read_file(name, &bytes, None).unwrap();
        for length in 0..bytes.len() {
            let error = read_file(name, &bytes[..length], None).unwrap_err();
            assert_eq!(error.kind(), Kind::Data, "{name}, {length} bytes: {error}");
        }
    }
}

#[test]
fn a_pickle_that_asks_for_more_than_tensors_is_refused_and_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let witness = dir.path().join("witness");
    let command = format!("touch {}", witness.display());
    let call = [b"cos\nsystem\n(".to_vec(), unicode(&command), b"tR".to_vec()].concat();
    let named = [b"}(".to_vec(), unicode("Q1"), call.clone(), b"u".to_vec()].concat();
    for object in [call, named] {
        let error = read_file("x.pth", &torch_file(&object, &VALUES), None).unwrap_err();
        assert!(error.to_string().contains("is no plain tensor, and nothing else is read"), "{error}");
    }
    assert!(!witness.exists());
}

/// Reads words from three vectors of width 2; id 3 is padding.
fn read_words(name: &str, bytes: &[u8], by_id: bool) -> Result<GivenRows> {
    let (dir, path) = file(name, bytes);
    let table = Tensor::new(&[[1f32, 0.0], [0.0, 4.0], [8.0, -4.0]], &Device::Cpu).unwrap();
    table.write_npy(dir.path().join("visual.npy")).unwrap();
    words(&path, &dir.path().join("visual.npy"), by_id.then_some(&entities()))
}

#[test]
fn features_are_the_mean_of_words_without_padding() {
    let json = "\u{feff}{\"2\": [0, 1, 1, 3, 2], \"0\": [3, 3], \"1\": [2]}".as_bytes();
    let rows = read_words("x.json", json, false).unwrap();
    assert_eq!(rows.keys, ["0", "1", "2"]);
    assert_eq!(rows.values, [0.0, 0.0, 8.0, -4.0, 2.25, 1.0]);
    let members = [("tokens/x.json", json.to_vec()), ("__MACOSX/tokens/._x.json", b"junk".to_vec())];
    let zip = zipped(&members, CompressionMethod::Deflated);
    assert_eq!(read_words("x.json.zip", &zip, true).unwrap().keys, ["Q1", "Q2", "Q3"]);
    let two = [("a.json", b"{}".to_vec()), ("b.json", b"{}".to_vec())];
    let two = zipped(&two, CompressionMethod::Stored);
    for (name, bytes, said) in [
        ("x.json", br#"{"a": [4]}"#.as_slice(), "entry `a`: word 4, but there are 3 vectors"),
        ("x.json", br#"{"a": [-1]}"#, "invalid value"),
        ("x.json", br#"{"a": [[1]]}"#, "invalid type"),
        ("x.json", br#"{"a": [1], "b": [1], "a": [2]}"#, "key `a` stands twice at line 1"),
        ("x.json", br#"{"0": [1], "3": [1]}"#, "`3` is no id in 0..3"),
        ("x.zip", b"junk", "a damaged zip archive"),
        ("x.zip", &two, "one JSON file was expected in it, but it has a.json, b.json"),
    ] {
        let error = read_words(name, bytes, said.contains("no id")).unwrap_err();
        assert!(error.kind() == Kind::Data && error.to_string().contains(said), "{error}");
    }
    let by_word = [("10.npy", npy_of("3,", &VALUES[..3])), ("2.npy", npy_of("3,", &VALUES[3..]))];
    let (_dir, vectors) = file("v.npz", &zipped(&by_word, CompressionMethod::Stored));
    let (_dir, lists) = file("x.json", br#"{"a": [1]}"#);
    let error = words(&lists, &vectors, None).unwrap_err();
    assert!(error.to_string().ends_with("names its rows, such as `10`, but word i has row i"), "{error}");
}

fn entities() -> Vec<Entity> {
    ["Q1", "Q2", "Q3"].map(|key| Entity { key: key.into(), ..Entity::default() }).to_vec()
}

fn rows(values: &[f32]) -> GivenRows {
    GivenRows { keys: Vec::new(), count: values.len() / 2, width: 2, values: values.to_vec() }
}

const BY_ID: Mapping = Mapping { keys: None, unknown: UnknownKeys::Refuse, zero_is_absent: true };

fn joined(rows: &GivenRows, mapping: Mapping) -> Result<FeatureTable> {
    join(rows, Path::new("x.npy"), mapping, &entities())
}

fn with_keys(text: &str, values: &[f32], unknown: UnknownKeys) -> Result<FeatureTable> {
    let (_dir, keys) = file("keys.txt", text.as_bytes());
    joined(&rows(values), Mapping { keys: Some(&keys), unknown, ..BY_ID })
}

#[test]
fn rows_are_in_the_order_of_ids_or_named_by_keys() {
    let three = rows(&[1.0, 2.0, 0.0, 0.0, 3.0, 4.0]);
    let table = joined(&three, BY_ID).unwrap();
    assert_eq!((table.row(2), table.present.as_slice()), (&[3.0, 4.0][..], &[true, false, true][..]));
    let table = joined(&three, Mapping { zero_is_absent: false, ..BY_ID }).unwrap();
    assert_eq!(table.coverage(), 1.0);
    for text in ["Q3\r\nQ1\r\n", "\u{feff}Q3 \n\nQ1\n\n", "Q3\nQ1"] {
        let table = with_keys(text, &[1.0, 2.0, 3.0, 4.0], UnknownKeys::Refuse).unwrap();
        assert_eq!([table.row(0), table.row(2)], [[3.0, 4.0], [1.0, 2.0]], "{text:?}");
        assert_eq!(table.present, [true, false, true]);
    }
    let table = with_keys("Q9\nQ2\n", &[1.0, 1.0, 2.0, 2.0], UnknownKeys::Skip).unwrap();
    assert_eq!((table.row(1), table.count_present()), (&[2.0, 2.0][..], 1));
    let named = GivenRows { keys: vec!["Q3".into(), "Q2".into()], ..rows(&[1.0, 2.0, 3.0, 4.0]) };
    let table = joined(&named, BY_ID).unwrap();
    assert_eq!([table.row(1), table.row(2)], [[3.0, 4.0], [1.0, 2.0]]);
    let twice = joined(&named, Mapping { keys: Some(Path::new("k")), ..BY_ID }).unwrap_err();
    assert_eq!(twice.kind(), Kind::Usage);
}

#[test]
fn rows_without_a_place_are_named() {
    let hint = "of the graph's keys they are like `Q1`; of 3 keys, 2 are no entity's";
    let (refuse, skip) = (UnknownKeys::Refuse, UnknownKeys::Skip);
    for (refused, message, hint) in [
        (with_keys("Q1\nQ9\nQ8\n", &[1.0; 6], refuse), "keys.txt: line 2: no entity has the key `Q9`", hint),
        (with_keys("Q8\nQ9\n", &[1.0; 4], skip), "none of 2 rows is one's and not zero", ""),
        (
            with_keys("Q1\nQ2\nQ1\n", &[1.0; 6], skip),
            "keys.txt: line 3: key `Q1` stands twice, first as number 1",
            "",
        ),
        (with_keys("Q1\n", &[1.0; 4], refuse), "keys.txt names 1 entities", "name the rows' entities"),
        (joined(&rows(&[1.0; 4]), BY_ID), "x.npy: 2 rows, but the graph has 3 entities", "name the rows"),
        (joined(&rows(&[0.0; 6]), BY_ID), "none of 3 rows is one's and not zero", ""),
    ] {
        let error = refused.expect_err(message);
        assert!(error.to_string().ends_with(message), "{error}");
        assert!(error.hint_text().unwrap_or_default().starts_with(hint), "{error}");
    }
}
