//! Inputs as people publish and damage them: the exit code and the message for each kind.

use mkg::graph::{Vocabulary, read_triples};

use crate::{File, Lab};

/// A small graph of keys, which the cases change.
const NAMED: [File; 3] = [
    ("train.tsv", b"a\tr\tb\nb\tr\tc\nc\tr\ta\na\tr\tc\nb\tr\td\n"),
    ("valid.tsv", b"d\tr\ta\n"),
    ("test.tsv", b"c\tr\td\n"),
];
/// Readable tables of the graph's keys.
const TABLES: [File; 2] =
    [("entities.tsv", b"key\tname\na\tAlpha\nb\tBeta\nc\tGamma\nd\tDelta\n"), ("relations.tsv", b"key\nr\n")];
/// The same graph with OpenKE's ids.
const OPENKE: [File; 5] = [
    ("entity2id.txt", b"4\na\t0\nb\t1\nc\t2\nd\t3\n"),
    ("relation2id.txt", b"1\nr\t0\n"),
    ("train2id.txt", b"5\n0 1 0\n1 2 0\n2 0 0\n0 2 0\n1 3 0\n"),
    ("valid2id.txt", b"1\n3 0 0\n"),
    ("test2id.txt", b"1\n2 3 0\n"),
];

fn both() -> Vec<File<'static>> {
    [NAMED.as_slice(), &TABLES].concat()
}

fn text((_, content): File<'static>) -> &'static str {
    std::str::from_utf8(content).unwrap()
}

/// Asserts that the import of `base` with `changes` ends with `code` and prints each of `says`.
#[track_caller]
fn case(base: &[File], changes: &[File], more: &[&str], code: i32, says: &[&str]) {
    Lab::of(&[base, changes].concat()).ends(more, code, says);
}

#[track_caller]
fn refused(base: &[File], changes: &[File], says: &[&str]) {
    case(base, changes, &[], 65, says);
}

/// Imports the files and returns the training triples as keys, and the vocabulary.
fn imported(files: &[File], more: &[&str]) -> (Vec<[String; 3]>, Vocabulary) {
    let lab = Lab::of(files);
    lab.ends(&[&["-qq"], more].concat(), 0, &[]);
    let vocabulary = Vocabulary::read(&lab.graph()).unwrap();
    let Vocabulary { entities, relations } = &vocabulary;
    let triples = read_triples(&lab.graph().join("train.parquet"), entities.len(), relations.len()).unwrap();
    let key = |id: mkg::EntityId| entities[id.index()].key.clone();
    let spelled =
        triples.iter().map(|t| [key(t.head), relations[t.relation.index()].key.clone(), key(t.tail)]);
    (spelled.collect(), vocabulary)
}

/// Asserts that the changed files give the same graph as the base files.
#[track_caller]
fn reads_alike(base: &[File], changes: &[File]) {
    let keys = |files: &[File]| {
        let (triples, vocabulary) = imported(files, &[]);
        (triples, vocabulary.entities.into_iter().map(|entity| entity.key).collect::<Vec<_>>())
    };
    assert_eq!(keys(&[base, changes].concat()), keys(base));
}

#[test]
fn headers() {
    let header: &[u8] = b"head\trelation\ttail\na\tr\tb\nb\tr\tc\n";
    refused(&both(), &[("train.tsv", header)], &["train.tsv: line 1", "header"]);
    refused(&NAMED, &[("train.tsv", header)], &["train.tsv: line 1", "header"]);
    // The words are in no list of header words, but every file has them.
    let others: [File; 3] = [
        ("train.tsv", b"Kopf\tArt\tEnde\na\tr\tb\nb\tr\tc\n"),
        ("valid.tsv", b"Kopf\tArt\tEnde\nc\tr\ta\n"),
        ("test.tsv", b"Kopf\tArt\tEnde\nc\tr\tb\n"),
    ];
    refused(&NAMED, &others, &["train.tsv: line 1", "a header, not a triple"]);
    // Pandas writes numbers as the header of unnamed columns.
    let numbered = OPENKE[2..].iter().map(|(name, _)| (name.replace("2id", ""), "0\t1\t2\n1\t0\t3\n"));
    let numbered: Vec<(String, &str)> = numbered.collect();
    let numbered: Vec<File> = numbered.iter().map(|(name, text)| (name.as_str(), text.as_bytes())).collect();
    let relations: File = ("relation2id.txt", b"r 0\ns 1\n");
    refused(&[OPENKE[0], relations], &numbered, &["train.txt: line 1", "numbers of columns"]);
    let parts: File = ("train.tsv", b"a\tr\tb\nhead\trelation\ttail\nb\tr\td\n");
    case(&NAMED, &[parts], &[], 0, &["line 2 of train is `head\trelation\ttail`: is it the header"]);
}

#[test]
fn ids_are_those_of_one_list() {
    let table = |text: &'static str| ("entities.tsv", text.as_bytes());
    let two = table("key\tname\nd\tDelta\nc\tGamma\nb\tBeta\na\tAlpha\n");
    refused(&OPENKE, &[two], &["entities.tsv and entity2id.txt both list the entities", "`import.entities`"]);
    case(&OPENKE, &[two], &["--set", "import.entities=\"entity2id.txt\""], 0, &[]);
    let turned = table("key\tid\nd\t3\nc\t2\nb\t1\na\t0\n");
    refused(&OPENKE[1..], &[turned], &["entities.tsv", "column `id` has 3 where", "gives 0"]);
    case(&OPENKE[1..], &[table("Key\tId\na\t0\nb\t1\nc\t2\nd\t3\n")], &[], 0, &["4 entities"]);
    case(
        &OPENKE[1..],
        &[table("key\tid\na\t70\nb\t1\nc\t2\nd\t3\n")],
        &[],
        0,
        &["columns id, of which none"],
    );
    refused(&OPENKE[1..], &[("entity2id.txt", b"a,0\nb,1\n")], &["line 1", "CSV, with commas"]);
}

#[test]
fn marks_at_the_end_of_lines() {
    let tail = |end: &str| {
        let files =
            [NAMED[1], NAMED[2], ("train.tsv", format!("b\tr\ta{end}\na .\tr\tb{end}\n").leak().as_bytes())];
        imported(&files, &[]).0[0][2].clone()
    };
    assert_eq!([tail(" ."), tail("\t."), tail("")], ["a", "a", "a"]);
    let train: File = ("train.tsv", b"u . s .\tr\ta\na\tr\tu . s .\nb\tr\td\n");
    assert_eq!(imported(&[train, NAMED[1], NAMED[2]], &[]).0[1][2], "u . s .");
    let glued: File = ("train.tsv", b"ex:a\tr\tex:b.\nex:b\tr\tex:a.\n");
    case(&NAMED, &[glued], &[], 0, &["all tails end in `.`, and no head does"]);
}

#[test]
fn what_a_server_says_is_no_file() {
    refused(&NAMED, &[("valid.tsv", b"404: Not Found")], &["valid.tsv: a server's error"]);
    let gene: File = ("entity2text.txt", b"PAR1\tF2R\na\tAlpha\n");
    case(&NAMED, &[gene], &[], 0, &["entities with a name"]);
}

#[test]
fn columns_in_another_order_and_files_left_out() {
    let tails_first: [File; 3] = [
        ("train.tsv", b"a\tb\tr\nb\tc\tr\nc\ta\tr\na\tc\tr\nb\td\tr\n"),
        ("valid.tsv", b"d\ta\tr\n"),
        ("test.tsv", b"c\td\tr\n"),
    ];
    case(&NAMED, &tails_first, &[], 0, &["4 of 4 relations are entities, too"]);
    refused(
        &both(),
        &tails_first,
        &["relation `b` is not among the relations", "are the columns head, relation, tail?"],
    );
    let bought: String = (0..30).map(|i| format!("u{}\ti{i}\tlikes\n", i % 5)).collect();
    let bought: File = ("train.tsv", bought.as_bytes());
    case(&NAMED, &[bought], &[], 0, &["31 relations are many for"]);
    let others: [File; 2] = [("dev.txt", b"a\tr\tb\n"), ("Makefile", b"")];
    case(&NAMED, &others, &[], 0, &["not read: dev.txt; to read one"]);
}

#[test]
fn openke_files_in_all_their_spellings() {
    let spelled: [File; 3] = [
        ("entity2id.txt", b"4\n\na \t 0\nb    1\nc\t\t2\nd 3\n\n"),
        ("relation2id.txt", b"1\r\nr  0\r\n"),
        ("train2id.txt", b"5\n0\t1\t0\n\n1\t2\t0\n2 0 0\n \n0 2 0\n1 3 0\n"),
    ];
    reads_alike(&OPENKE, &spelled);
    let behind: &[u8] = b"2\n0 1 4\n1 2 4\n";
    refused(&OPENKE, &[("train2id.txt", behind)], &["relation 4 is out of range 0..1", "subtract 4"]);
    refused(&OPENKE, &[("train2id.txt", b"0 1 0\n1 2 0\n")], &["no count line, as", "import.format"]);
    let none: [File; 3] =
        [("train2id.txt", b"0 1 0\n1 0 0\n"), ("valid2id.txt", b"1 1 0\n"), ("test2id.txt", b"0 0 0\n")];
    refused(&OPENKE, &none, &["expected a count line", "import.format = \"ids\""]);
}

#[test]
fn n_triples() {
    let spelled = |end: &str, text: &str| -> String {
        let line = |line: &str| line.split('\t').map(|key| format!("<http://x/{key}>")).collect::<Vec<_>>();
        text.lines().map(|l| format!("{}{end}\n", line(l).join(" "))).collect()
    };
    let plain = NAMED.map(|file| (file.0, spelled(" .", text(file))));
    let plain = plain.each_ref().map(|(name, text)| (*name, text.as_bytes()));
    let glued = format!("# a comment\n{}", spelled(".", text(NAMED[0])));
    reads_alike(&plain, &[("train.tsv", glued.as_bytes())]);
    let lonely: File = ("train.tsv", b"# a comment\n<x> <y> <z> .\n<a> <r> <b> .\n<b> <r> <a> .\n");
    case(&NAMED, &[lonely], &[], 0, &["the first line of train, `<x> <y> <z> .`, stands on another"]);
    let marked: File = ("train.tsv", b"<a>\t<r>\t<b>\n#NLP\t<r>\t<b>\n# so it is\n");
    assert_eq!(imported(&[marked, NAMED[1], NAMED[2]], &[]).0[1], ["#NLP", "<r>", "<b>"]);
    refused(
        &NAMED,
        &[("train.tsv", b"{\"h\": \"a\", \"r\": \"r\", \"t\": \"b\"}\n")],
        &["line 1", "is it JSON?"],
    );
}

#[test]
fn encodings_are_named_or_read() {
    let train = text(NAMED[0]);
    let utf16: Vec<u8> = train.encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(&NAMED, &[("train.tsv", &utf16)], &["train.tsv", "UTF-16"]);
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let [entities, relations] = TABLES.map(|table| marked(text(table)));
    let windows = marked(&train.replace('\n', "\r\n"));
    let files: [File; 3] =
        [("entities.tsv", &entities), ("relations.tsv", &relations), ("train.tsv", &windows)];
    reads_alike(&both(), &files);
    // Joined files keep the byte order marks of each file.
    let joined = train.replace("b\tr\tc", "\u{feff}b\tr\tc");
    reads_alike(&both(), &[("train.tsv", joined.as_bytes())]);
    let captions = r#"import.captions=[{file="c.json"}]"#;
    let json = marked(r#"{"a": "A painting."}"#);
    case(&NAMED, &[("c.json", &json)], &["--set", captions], 0, &["entities with a caption", "1 "]);
}

#[test]
fn numbers_are_ids_or_keys_but_never_guessed() {
    let table: File = ("entities.tsv", b"key\n2000\n0\n1\n");
    let relations: File = ("relations.tsv", b"key\n0\n1\n");
    let lines: [File; 3] =
        [("train.tsv", b"1\t0\t0\n0\t1\t1\n"), ("valid.tsv", b"1\t1\t1\n"), ("test.tsv", b"0\t0\t1\n")];
    let own: Vec<File> = [table, relations].into_iter().chain(lines).collect();
    refused(&[], &own, &["is one triple by id and another by key", "import.format"]);
    assert_eq!(imported(&own, &["--format", "named"]).0, [["1", "0", "0"], ["0", "1", "1"]]);
    // One split fits only as keys, another only as ids.
    let mixed: [File; 2] = [("train.tsv", b"2000\t0\t0\n"), ("test.tsv", b"0\t0\t2\n")];
    let mixed: Vec<File> = own.iter().copied().chain(mixed).collect();
    refused(&[], &mixed, &["neither all ids nor all keys", "import.format"]);
    // A map whose keys are numbers of eight digits that are in range as ids.
    let padded: [File; 5] = [
        ("entity2id.txt", b"00000002 0\n00000000 1\n00000001 2\n"),
        ("relation2id.txt", b"7 0\n1 1\n0 2\n"),
        ("train.txt", b"00000000\t1\t00000002\n"),
        ("valid.txt", b"00000001\t1\t00000002\n"),
        ("test.txt", b"00000000\t1\t00000001\n"),
    ];
    refused(&[], &padded, &["import.format"]);
    // A map from each number to itself leaves no question.
    let same: [File; 5] = [
        ("entity2id.txt", b"0 0\n1 1\n2 2\n"),
        ("relation2id.txt", b"0 0\n1 1\n"),
        ("train.txt", b"0 0 1\n1 0 2\n2 1 0\n"),
        ("valid.txt", b"0 1 2\n"),
        ("test.txt", b"2 0 0\n"),
    ];
    case(&[], &same, &[], 0, &["3 entities, 2 relations"]);
    // There is no map.
    case(&[], &lines, &[], 66, &["--format named", "import.entities"]);
    let half: File = ("valid.tsv", b"a1\t1\t1\n");
    case(&[], &[lines[0], half, lines[2]], &[], 66, &["--format named"]);
    let counted: File = ("train.tsv", b"1999\na\tr\tb\n");
    refused(&NAMED, &[counted], &["line 1: expected 3 columns, found 1", "count line"]);
}

#[test]
fn keys_that_look_the_same() {
    let tables: [File; 2] =
        [("entities.tsv", "key\ncaf\u{e9}\nb\n".as_bytes()), ("relations.tsv", b"key\nr\n")];
    let splits: [File; 3] = [
        ("train.tsv", "cafe\u{301}\tr\tb\nb\tr\tb\n".as_bytes()),
        ("valid.tsv", b"b\tr\tb\n"),
        ("test.tsv", b"b\tr\tb\n"),
    ];
    let closed: Vec<File> = tables.into_iter().chain(splits).collect();
    refused(&[], &closed, &["is not among the entities", "looks the same", r"caf\u{e9}", r"cafe\u{301}"]);
    let test: File = ("test.tsv", "caf\u{e9}\tr\tb\n".as_bytes());
    case(&[], &[splits[0], splits[1], test], &[], 0, &["1 keys of entities look like another's"]);
    refused(&both(), &[("test.tsv", b"A\tr\tb\n")], &["head `A`", "there is `a`"]);
}

#[test]
fn texts_that_are_odd_are_told() {
    let set = |file: &str| format!("import.descriptions=[{{file=\"{file}\"}}]");
    let told = |file: &str, text: &str, code: i32, says: &[&str]| {
        case(&both(), &[(file, text.as_bytes())], &["--set", &set(file)], code, says);
    };
    let twice = "1 texts have a key that has one already, such as `a`";
    told("d.json", r#"{"a": "first", "a": "second"}"#, 0, &[twice]);
    told("d.json", "{\"key\": \"a\"}\n{\"key\": \"b\"}\n", 65, &["d.json: line 2", "JSON Lines"]);
    told("d.json", "[{\"key\": \"a\"}]", 65, &["write one object"]);
    told("d.json", "[\"a\",\n", 65, &["write one object"]);
    let none = "none of its 2 texts belongs to this graph, which has no key `Alpha`";
    told("d.txt", "Alpha\tx\nQ7\ty\n", 0, &[none]);
    told("d.txt", "a\t\"Alpha, the \"\"first\"\"\"\n", 0, &["1 texts are quoted as in CSV"]);
    told("d.txt", "a,b,A town.\n", 65, &["found no tab", "CSV"]);
    told("d.jsonl", "{\"key\": \"a\", \"text\": \"x\"}\n", 65, &["found no tab", "JSON"]);
    let nan: File = ("train.tsv", b"a\tr\tnan\nb\tr\td\n");
    case(&NAMED, &[nan], &[], 0, &["one entity is `nan`: where that is a missing value"]);
}

#[test]
fn texts_go_to_the_key_they_name() {
    let names = |files: &[File], more: &[&str]| {
        let entities = imported(files, more).1.entities.into_iter();
        entities.map(|entity| entity.name.unwrap_or("none".to_owned())).collect::<Vec<_>>()
    };
    let numbers: [File; 4] = [
        ("train.tsv", b"5\tr\t7\n7\tr\t9\n9\tr\t5\n"),
        ("valid.tsv", b"7\tr\t5\n"),
        ("test.tsv", b"5\tr\t9\n"),
        ("entity2text.txt", b"0\tof 0\n1\tof 1\n2\tof 2\n3\tof 3\n5\tof 5\n9\tof 9\n"),
    ];
    assert_eq!(names(&numbers, &["--format", "named"]), ["of 5", "none", "of 9"]);
    let addresses: [File; 4] = [
        ("train.tsv", b"http://x/a\tr\ta\na\tr\thttp://y/a\n"),
        ("valid.tsv", b"a\tr\ta\n"),
        ("test.tsv", b"a\tr\thttp://x/a\n"),
        ("entity2text.txt", b"a\tof a\nhttp://x/a\tof x\nhttp://y/a\tof y\n"),
    ];
    assert_eq!(names(&addresses, &[]), ["of x", "of a", "of y"]);
    // The numbers belong to another dataset, but some of them are ids here.
    let foreign: File = ("entity2text.txt", b"1\tToy Story\n3\tHeat\n260\tStar Wars\n");
    refused(&OPENKE, &[foreign], &["line 3: id 260 is out of range 0..4", "ids of another dataset"]);
    let wikidata: File = ("train.tsv", b"Q5\tr\tQ30\nQ30\tr\tQ42\nQ42\tr\tQ1\n");
    let numbers: File = ("entity2text.txt", b"0\thuman\n1\tUnited States\n2\tAdams\n3\tuniverse\n");
    assert_eq!(names(&[wikidata, numbers, NAMED[1], NAMED[2]], &[])[3], "none");
    let entries = r#"{"0": {"entity": "d", "text": "of d"}, "1": {"entity": "c", "text": "of c"}}"#;
    let set = |more: &str| format!("import.names=[{{file=\"d.json\", field=\"text\"{more}}}]");
    let files = [OPENKE.as_slice(), &[("d.json", entries.as_bytes())]].concat();
    case(&files, &[], &["--set", &set("")], 65, &["may be ids of the graph", "`key_field`"]);
    assert_eq!(names(&files, &["--set", &set(", key_field=\"entity\"")])[2..], ["of c", "of d"]);
}

#[test]
fn image_folders_in_other_layouts_are_told_with_an_example() {
    let layout = "images lie in a folder named like the entity's key";
    let told = |files: &[&str], says: &[&str]| {
        let files: Vec<File> = files.iter().map(|name| (*name, b"x".as_slice())).collect();
        case(&both(), &files, &[], 0, says);
    };
    told(&["images/a.png", "images/b.png"], &["entities with an image (2 images)"]);
    told(&["images/a_1.png", "images/b_1.png"], &["2 images or their folders", "such as `a_1.png`", layout]);
    told(&["images/0/1.png", "images/1/1.png"], &["such as `0/`: as an id it would be that of `a`", layout]);
    told(&["images/Alpha/1.png"], &["such as `Alpha/`: it is the name of `a`"]);
    told(&["images/all/a/1.png"], &["`all/` holds what is named like entities"]);
    told(
        &["images/a/1.png", "images/b/1.tif", "images/b/2.jfif", "images/c/x", "images/c/all/1.png"],
        &[
            "4 files are skipped for their ending (1 .jfif, 1 .tif, 1 folders, 1 without an ending)",
            "2 image folders have no image that is read, such as `b/`",
        ],
    );
    told(&["images/a/1.png", "images/a/._1.png"], &["(1 images)", "1 files are skipped for their ending"]);
    told(&["pictures/a/1.png"], &["`pictures/` holds images, but is not read: set `import.images`"]);
    told(&["images.zip"], &["`images.zip` is not read: unpack it"]);
    told(&["entity_images.zip"], &["unpack it"]);
}

#[test]
fn names_cannot_act_on_the_terminal() {
    let train: &[u8] = "a\x1b[2J\u{202e}\tr\tb\nb\tr\ta\x1b[2J\u{202e}\n".as_bytes();
    let files: [File; 4] = [
        ("train.tsv", train),
        ("valid.tsv", b"b\tr\tb\n"),
        ("test.tsv", train),
        ("entity2text.txt", b"q\x1b[1m\tx\n"),
    ];
    let said = Lab::of(&files).ends(&[], 0, &["\\u001b"]);
    assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said}");
}
