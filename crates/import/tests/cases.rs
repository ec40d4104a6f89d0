//! Inputs as people publish and spoil them: for each kind the exit code, and what must be said of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use mkg::graph::{Vocabulary, read_triples};
use std::path::Path;
use std::process::Command;

/// A small graph of keys: what the cases change.
const NAMED: [(&str, &str); 3] = [
    ("train.tsv", "a\tr\tb\nb\tr\tc\nc\tr\ta\na\tr\tc\nb\tr\td\n"),
    ("valid.tsv", "d\tr\ta\n"),
    ("test.tsv", "c\tr\td\n"),
];
/// Readable tables of its keys.
const TABLES: [(&str, &str); 2] =
    [("entities.tsv", "key\tname\na\tAlpha\nb\tBeta\nc\tGamma\nd\tDelta\n"), ("relations.tsv", "key\nr\n")];
/// The same graph as OpenKE's ids.
const OPENKE: [(&str, &str); 5] = [
    ("entity2id.txt", "4\na\t0\nb\t1\nc\t2\nd\t3\n"),
    ("relation2id.txt", "1\nr\t0\n"),
    ("train2id.txt", "5\n0 1 0\n1 2 0\n2 0 0\n0 2 0\n1 3 0\n"),
    ("valid2id.txt", "1\n3 0 0\n"),
    ("test2id.txt", "1\n2 3 0\n"),
];

/// Imports these files, later ones in the place of earlier ones; gives the exit code and all that was said, and hands the
/// graph's folder to `look`.
fn import(files: &[(&str, &[u8])], more: &[&str], look: impl FnOnce(&Path)) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("raw");
    for (name, bytes) in files {
        let path = raw.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_dsom-import"));
    command.env_remove("RUST_LOG").env_remove("DSOM_RUN").arg("--run").arg(dir.path().join("run"));
    let output = command.arg("--raw").arg(&raw).args(more).output().unwrap();
    look(&dir.path().join("run/graph"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

/// With `changes` to the files of `base`, the import ends with `code` and says each of `says`.
#[track_caller]
fn case(base: &[&[(&str, &str)]], changes: &[(&str, &[u8])], more: &[&str], code: i32, says: &[&str]) {
    let files: Vec<(&str, &[u8])> = base
        .iter()
        .flat_map(|files| files.iter())
        .map(|(name, text)| (*name, text.as_bytes()))
        .chain(changes.iter().copied())
        .collect();
    let (found, said) = import(&files, more, |_| ());
    assert_eq!(found, code, "{said}");
    for part in says {
        assert!(said.contains(part), "expected `{part}`, found: {said}");
    }
}

/// The graph's training triples in keys, and all its entities.
fn graph(folder: &Path) -> (Vec<[String; 3]>, Vec<String>) {
    let Vocabulary { entities, relations } = Vocabulary::read(folder).unwrap();
    let triples = read_triples(&folder.join("train.parquet"), entities.len(), relations.len()).unwrap();
    let key = |id: mkg::EntityId| entities[id.index()].key.clone();
    let spelled =
        triples.iter().map(|t| [key(t.head), relations[t.relation.index()].key.clone(), key(t.tail)]);
    (spelled.collect(), entities.iter().map(|entity| entity.key.clone()).collect())
}

/// The changed files are read as the base graph is.
#[track_caller]
fn reads_alike(base: &[(&str, &str)], changes: &[(&str, &[u8])]) {
    let plain: Vec<(&str, &[u8])> = base.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let changed: Vec<(&str, &[u8])> = plain.iter().chain(changes).copied().collect();
    let (mut expected, mut found) = (None, None);
    import(&plain, &["-qq"], |folder| expected = Some(graph(folder)));
    let (code, said) = import(&changed, &["-qq"], |folder| {
        found = folder.join("stage.json").is_file().then(|| graph(folder));
    });
    assert_eq!((code, found), (0, expected), "{said}");
}

#[test]
fn headers_and_columns_too_many() {
    let header: &[u8] = b"head\trelation\ttail\na\tr\tb\nb\tr\tc\n";
    case(&[&NAMED, &TABLES], &[("train.tsv", header)], &[], 65, &["train.tsv: line 1", "header"]);
    case(&[&NAMED], &[("train.tsv", header)], &[], 65, &["train.tsv: line 1", "header"]);
    case(
        &[&OPENKE],
        &[("train2id.txt", b"Subject Predicate Object\n0 1 0\n")],
        &[],
        65,
        &["line 1", "header"],
    );
    let indexed: &[u8] = b"\thead\trelation\ttail\n0\ta\tr\tb\n";
    case(&[&NAMED], &[("train.tsv", indexed)], &[], 65, &["line 1", "header"]);
    let scored: &[u8] = b"a\tr\tb\t1.0\nb\tr\tc\t0.5\n";
    case(&[&NAMED], &[("train.tsv", scored)], &[], 65, &["line 1: expected 3 columns, found 4", "a score"]);
    // In words that no list has, but in every file.
    let others: [(&str, &[u8]); 3] = [
        ("train.tsv", b"Kopf\tArt\tEnde\na\tr\tb\nb\tr\tc\n"),
        ("valid.tsv", b"Kopf\tArt\tEnde\nc\tr\ta\n"),
        ("test.tsv", b"Kopf\tArt\tEnde\nc\tr\tb\n"),
    ];
    case(&[&NAMED], &others, &[], 65, &["train.tsv: line 1", "a header, not a triple"]);
}

#[test]
fn openke_files_in_all_their_spellings() {
    reads_alike(
        &OPENKE,
        &[
            ("entity2id.txt", b"4\n\na \t 0\nb    1\nc\t\t2\nd 3\n\n"),
            ("relation2id.txt", b"1\r\nr  0\r\n"),
            ("train2id.txt", b"5\n0\t1\t0\n\n1\t2\t0\n2 0 0\n \n0 2 0\n1 3 0\n"),
        ],
    );
    let behind: &[u8] = b"2\n0 1 4\n1 2 4\n";
    case(
        &[&OPENKE],
        &[("train2id.txt", behind)],
        &[],
        65,
        &["relation 4 is out of range 0..1", "subtract 4"],
    );
    case(
        &[&OPENKE],
        &[("train2id.txt", b"0 1 0\n1 2 0\n")],
        &[],
        65,
        &["no count line, as", "import.format"],
    );
    let none: [(&str, &[u8]); 3] =
        [("train2id.txt", b"0 1 0\n1 0 0\n"), ("valid2id.txt", b"1 1 0\n"), ("test2id.txt", b"0 0 0\n")];
    case(&[&OPENKE], &none, &[], 65, &["expected a count line", "import.format = \"ids\""]);
    let large: &[u8] = b"4\na\t0\nb\t1\nc\t2\nd\t4294967296\n";
    case(&[&OPENKE], &[("entity2id.txt", large)], &[], 65, &["line 5: id 4294967296 is out of range 0..4"]);
}

#[test]
fn n_triples_and_what_is_not() {
    let spelled = |end: &str, text: &str| -> String {
        let line = |line: &str| line.split('\t').map(|key| format!("<http://x/{key}>")).collect::<Vec<_>>();
        text.lines().map(|l| format!("{}{end}\n", line(l).join(" "))).collect()
    };
    let plain: Vec<(&str, String)> = NAMED.iter().map(|(name, text)| (*name, spelled(" .", text))).collect();
    let plain: Vec<(&str, &str)> = plain.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let glued = format!("# a comment\n{}", spelled(".", NAMED[0].1));
    reads_alike(&plain, &[("train.tsv", glued.as_bytes())]);
    for (line, says) in [
        ("@prefix x: <http://x/> .", "a directive of Turtle"),
        ("<http://x/a> <http://x/r> \"1984\"^^<http://x/year> .", "is a literal"),
        ("<http://x/a> <http://x/r> \"one two three\"@en .", "is a literal"),
        ("<http://x/a> <http://x/r> <http://x/b> ;", "Turtle"),
        ("<http://x/a> <http://x/r> <http://x/b> <http://x/g> .", "N-Quads"),
    ] {
        let text = format!("{}{line}\n", plain[0].1);
        case(&[&plain], &[("train.tsv", text.as_bytes())], &[], 65, &["line 6: ", says]);
    }
}

#[test]
fn tables_with_other_separators() {
    for (text, says) in [
        ("a,r,b\nb,r,c\n", "commas"),
        ("\"a\",\"r\",\"b\"\n\"b\",\"r\",\"c\"\n", "commas"),
        ("a;r;b\nb;r;c\n", "semicolons"),
        ("New York,lies on,the Hudson\nOld York,lies on,the Ouse\n", "commas"),
        ("a,\"r, or so\",b\nb,r,c\n", "CSV"),
    ] {
        case(&[&NAMED], &[("train.tsv", text.as_bytes())], &[], 65, &["line 1", says]);
    }
}

#[test]
fn encodings_are_named_or_read() {
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let train = NAMED[0].1;
    for (bytes, says) in [
        (utf16(&format!("\u{feff}{train}")), "UTF-16"),
        (utf16(train), "UTF-16"),
        (train.replace('a', "é").chars().map(|c| c as u8).collect(), "Latin-1"),
        (b"\x1f\x8b\x08\x00\x00".to_vec(), "gzip"),
        (train.replace('\n', "\r").into_bytes(), "carriage return (CR)"),
        (train.replace('b', "b\0").into_bytes(), "NUL"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(), "Git LFS"),
        (b"<!DOCTYPE html><html>Sign in</html>".to_vec(), "web page"),
    ] {
        case(&[&NAMED], &[("train.tsv", &bytes)], &[], 65, &["train.tsv", says]);
    }
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let (entities, relations, train) =
        (marked(TABLES[0].1), marked(TABLES[1].1), marked(&train.replace('\n', "\r\n")));
    let both = [TABLES.as_slice(), &NAMED].concat();
    reads_alike(&both, &[("entities.tsv", &entities), ("relations.tsv", &relations), ("train.tsv", &train)]);
    // Files that were put together keep the marks of each.
    let joined = NAMED[0].1.replace("b\tr\tc", "\u{feff}b\tr\tc");
    reads_alike(&both, &[("train.tsv", joined.as_bytes())]);
    let captions = r#"import.captions=[{file="c.json"}]"#;
    let json = marked(r#"{"a": "A painting."}"#);
    case(&[&NAMED], &[("c.json", &json)], &["--set", captions], 0, &["entities with a caption", "1 "]);
}

#[test]
fn numbers_are_ids_or_keys_but_never_guessed() {
    let table: (&str, &[u8]) = ("entities.tsv", b"key\n2000\n0\n1\n");
    let relations: (&str, &[u8]) = ("relations.tsv", b"key\n0\n1\n");
    let lines: [(&str, &[u8]); 3] =
        [("train.tsv", b"1\t0\t0\n0\t1\t1\n"), ("valid.tsv", b"1\t1\t1\n"), ("test.tsv", b"0\t0\t1\n")];
    let own: Vec<(&str, &[u8])> = [table, relations].into_iter().chain(lines).collect();
    case(&[], &own, &[], 65, &["is one triple by id and another by key", "import.format"]);
    import(&own, &["-qq", "--format", "named"], |folder| {
        assert_eq!(
            graph(folder).0,
            [["1", "0", "0"], ["0", "1", "1"]].map(|triple| triple.map(str::to_owned))
        );
    });
    // One split by key and another by id.
    let mixed: [(&str, &[u8]); 2] = [("train.tsv", b"2000\t0\t0\n"), ("test.tsv", b"0\t0\t2\n")];
    let mixed: Vec<(&str, &[u8])> = own.iter().copied().chain(mixed).collect();
    case(&[], &mixed, &[], 65, &["neither all ids nor all keys", "import.format"]);
    // A map whose keys are numbers of eight digits, in range as ids.
    let padded: [(&str, &[u8]); 5] = [
        ("entity2id.txt", b"00000002 0\n00000000 1\n00000001 2\n"),
        ("relation2id.txt", b"7 0\n1 1\n0 2\n"),
        ("train.txt", b"00000000\t1\t00000002\n"),
        ("valid.txt", b"00000001\t1\t00000002\n"),
        ("test.txt", b"00000000\t1\t00000001\n"),
    ];
    case(&[], &padded, &[], 65, &["import.format"]);
    // The ids of a map that says what they say are no question.
    let same: [(&str, &[u8]); 5] = [
        ("entity2id.txt", b"0 0\n1 1\n2 2\n"),
        ("relation2id.txt", b"0 0\n1 1\n"),
        ("train.txt", b"0 0 1\n1 0 2\n2 1 0\n"),
        ("valid.txt", b"0 1 2\n"),
        ("test.txt", b"2 0 0\n"),
    ];
    case(&[], &same, &[], 0, &["3 entities, 2 relations"]);
    // Without a map.
    case(&[], &lines, &[], 66, &["--format named", "import.entities"]);
    let half: (&str, &[u8]) = ("valid.tsv", b"a1\t1\t1\n");
    case(&[], &[lines[0], half, lines[2]], &[], 66, &["--format named"]);
    case(
        &[&NAMED],
        &[("train.tsv", b"1999\na\tr\tb\n")],
        &[],
        65,
        &["line 1: expected 3 columns, found 1", "count line"],
    );
}

#[test]
fn keys_that_look_the_same() {
    let tables: [(&str, &[u8]); 2] =
        [("entities.tsv", "key\ncaf\u{e9}\nb\n".as_bytes()), ("relations.tsv", b"key\nr\n")];
    let splits: [(&str, &[u8]); 3] = [
        ("train.tsv", "cafe\u{301}\tr\tb\nb\tr\tb\n".as_bytes()),
        ("valid.tsv", b"b\tr\tb\n"),
        ("test.tsv", b"b\tr\tb\n"),
    ];
    let closed: Vec<(&str, &[u8])> = tables.into_iter().chain(splits).collect();
    case(
        &[],
        &closed,
        &[],
        65,
        &["is not among the entities", "looks the same", r"caf\u{e9}", r"cafe\u{301}"],
    );
    let test: (&str, &[u8]) = ("test.tsv", "caf\u{e9}\tr\tb\n".as_bytes());
    case(&[], &[splits[0], splits[1], test], &[], 0, &["1 keys of entities look like another's"]);
    case(&[&NAMED, &TABLES], &[("test.tsv", b"A\tr\tb\n")], &[], 65, &["head `A`", "there is `a`"]);
}

#[test]
fn texts_that_are_odd_are_told() {
    let both: &[&[(&str, &str)]] = &[&NAMED, &TABLES];
    let set = |file: &str| format!("import.descriptions=[{{file=\"{file}\"}}]");
    let told = |file: &str, text: &str, code: i32, says: &[&str]| {
        case(both, &[(file, text.as_bytes())], &["--set", &set(file)], code, says);
    };
    told(
        "d.json",
        r#"{"a": "first", "a": "second"}"#,
        0,
        &["1 texts have a key that has one already, such as `a`"],
    );
    told("d.txt", "a\tfirst\na\tsecond\n", 0, &["1 texts have a key that has one already, such as `a`"]);
    told(
        "d.txt",
        "a\tnan\nb\tnan\nc\tA town.\n",
        0,
        &["2 texts are words for a missing value, such as `nan`"],
    );
    told("d.json", "{\"key\": \"a\"}\n{\"key\": \"b\"}\n", 65, &["d.json: line 2", "JSON Lines"]);
    told("d.json", "[{\"key\": \"a\"}]", 65, &["write one object"]);
    told("d.json", r#"{"a": 5}"#, 65, &["entry `a` is no text: 5"]);
    told(
        "d.txt",
        "Alpha\tx\nQ7\ty\n",
        0,
        &["none of its 2 texts belongs to this graph, which has no key `Alpha`"],
    );
    told("d.txt", "a,A town.\n", 65, &["found no tab"]);
    let empty: &[u8] = b"key\tname\na\t\nb\t\nc\t\nd\t\n";
    case(both, &[("entities.tsv", empty)], &[], 0, &["entities.tsv: all its 4 texts are empty"]);
}

#[test]
fn texts_go_to_the_key_they_name() {
    let named = |files: &[(&str, &[u8])], more: &[&str]| -> Vec<Option<String>> {
        let mut names = Vec::new();
        let (code, said) = import(files, more, |folder| {
            let entities = Vocabulary::read(folder).map(|read| read.entities).unwrap_or_default();
            names = entities.into_iter().map(|entity| entity.name).collect();
        });
        assert_eq!(code, 0, "{said}");
        names
    };
    let some = |texts: &[&str]| texts.iter().map(|text| Some((*text).to_owned())).collect::<Vec<_>>();
    let numbers: [(&str, &[u8]); 4] = [
        ("train.tsv", b"5\tr\t7\n7\tr\t9\n9\tr\t5\n"),
        ("valid.tsv", b"7\tr\t5\n"),
        ("test.tsv", b"5\tr\t9\n"),
        ("entity2text.txt", b"0\tof 0\n1\tof 1\n2\tof 2\n3\tof 3\n5\tof 5\n9\tof 9\n"),
    ];
    let found = named(&numbers, &["-qq", "--format", "named"]);
    assert_eq!(found, [Some("of 5".to_owned()), None, Some("of 9".to_owned())]);
    let addresses: [(&str, &[u8]); 4] = [
        ("train.tsv", b"http://x/a\tr\ta\na\tr\thttp://y/a\n"),
        ("valid.tsv", b"a\tr\ta\n"),
        ("test.tsv", b"a\tr\thttp://x/a\n"),
        ("entity2text.txt", b"a\tof a\nhttp://x/a\tof x\nhttp://y/a\tof y\n"),
    ];
    assert_eq!(named(&addresses, &["-qq"]), some(&["of x", "of a", "of y"]));
    let shared: [(&str, &[u8]); 4] = [
        ("train.tsv", b"http://x/a\tr\thttp://y/a\nhttp://y/a\tr\thttp://y/b\n"),
        ("valid.tsv", b"http://y/b\tr\thttp://x/a\n"),
        ("test.tsv", b"http://y/b\tr\thttp://y/b\n"),
        ("entity2text.txt", b"a\tof a\nb\tof b\n"),
    ];
    assert_eq!(named(&shared, &["-qq"]), [None, None, Some("of b".to_owned())]);
    case(&[], &shared, &[], 0, &["`a` may mean `http://x/a` or `http://y/a`"]);
}

#[test]
fn image_folders_in_other_layouts_are_told_with_an_example() {
    let both: &[&[(&str, &str)]] = &[&NAMED, &TABLES];
    let layout = "images lie in a folder named like the entity's key";
    let told = |files: &[&str], says: &[&str]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|name| (*name, b"x".as_slice())).collect();
        case(both, &files, &[], 0, says);
    };
    told(&["images/a.png", "images/b.png"], &["entities with an image (2 images)"]);
    told(&["images/a_1.png", "images/b_1.png"], &["2 images or their folders", "such as `a_1.png`", layout]);
    told(&["images/0/1.png", "images/1/1.png"], &["such as `0/`: as an id it would be that of `a`", layout]);
    told(&["images/Alpha/1.png"], &["such as `Alpha/`: it is the name of `a`"]);
    told(&["images/all/a/1.png"], &["`all/` holds what is named like entities"]);
    told(
        &["images/a/1.png", "images/b/1.tif", "images/b/2.jfif", "images/c/x"],
        &[
            "3 files are skipped for their ending (1 .jfif, 1 .tif, 1 without an ending)",
            "2 image folders have no image that is read, such as `b/`",
        ],
    );
    told(&["pictures/a/1.png"], &["`pictures/` holds images, but is not read: set `import.images`"]);
    told(&["images.zip"], &["`images.zip` is not read: unpack it"]);
}

#[test]
fn names_cannot_act_on_the_terminal() {
    let train: &[u8] = "a\x1b[2J\u{202e}\tr\tb\nb\tr\ta\x1b[2J\u{202e}\n".as_bytes();
    let (code, said) = import(
        &[
            ("train.tsv", train),
            ("valid.tsv", b"b\tr\tb\n"),
            ("test.tsv", train),
            ("entity2text.txt", b"q\x1b[1m\tx\n"),
        ],
        &[],
        |_| (),
    );
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains(['\u{1b}', '\u{202e}']) && said.contains("\\u001b"), "{said}");
}
