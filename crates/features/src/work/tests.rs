//! The stage in a run whose graph these tests make.

use super::*;
use clap::Parser;
use stage::Kind;

const RECIPE: &str = "[features.visual]\nfrom = \"images\"\nencoder = \"random\"\n";

struct Fixture(tempfile::TempDir);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

impl Fixture {
    /// Three entities `a`, `b`, `c` that no file lists; `a` has an image.
    fn new() -> Fixture {
        let fixture = Fixture(tempfile::tempdir().unwrap());
        std::fs::create_dir(fixture.path("photos")).unwrap();
        fixture.paint([9, 9, 9]);
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the image; its file has the same size for every colour.
    fn paint(&self, colour: [u8; 3]) {
        let path = self.path("photos/a.png");
        image::RgbImage::from_pixel(8, 8, image::Rgb(colour)).save(&path).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(999).unwrap();
    }

    fn import(&self) {
        let run = Run::new(self.path("run"));
        let mut task = Task::new(&run, "dsom-import", run.graph(), &json!({ "images": "photos" }), 0);
        task.external_input(&self.path("photos/a.png"), "raw/photos/a.png").unwrap();
        let (work, ()) = task.begin(true, || Ok(())).unwrap().unwrap();
        let entities = ["a", "b", "c"].map(|key| Entity { key: key.to_owned(), ..Entity::default() });
        let mut vocabulary = Vocabulary { entities: entities.to_vec(), ..Vocabulary::default() };
        vocabulary.entities[0].images.push("a.png".to_owned());
        vocabulary.write(&work.path("")).unwrap();
        work.finish(json!({ "images_root": self.path("photos"), "entities_listed": false })).unwrap();
    }

    /// Makes the features that `recipe` asks for.
    fn make(&self, recipe: &str) -> Result<()> {
        std::fs::write(self.path("recipe.toml"), recipe).unwrap();
        let [run, recipe] = ["run", "recipe.toml"].map(|name| self.path(name));
        let line = ["x".as_ref(), "--run".as_ref(), run.as_os_str(), "--recipe".as_ref(), recipe.as_os_str()];
        super::run(&Cli::parse_from(line).arguments)
    }
}

#[test]
fn an_image_of_the_same_size_with_other_colours_gets_other_features() {
    let fixture = Fixture::new();
    let made = || {
        fixture.import();
        fixture.make(RECIPE).unwrap();
        std::fs::read(fixture.path("run/features/visual").join(table::FILE)).unwrap()
    };
    let (first, again) = (made(), made());
    fixture.paint([9, 99, 9]);
    assert!(first == again && first != made());
}

/// Asserts that the stage refuses a recipe with an error of the kind `Data`.
#[track_caller]
fn refused(made: Result<()>, words: &str) {
    let error = made.unwrap_err();
    assert!(error.kind() == Kind::Data && error.to_string().contains(words), "{error}");
}

#[test]
fn features_of_what_no_entity_has_any_more_are_refused() {
    let fixture = Fixture::new();
    fixture.import();
    let texts = "[features.visual]\nfrom = \"text\"\nfields = [\"caption\"]\n";
    fixture.make(texts).unwrap();
    fixture.make(RECIPE).unwrap();
    refused(
        fixture.make(texts),
        "features/visual: no entity has such a text, so these features are of another graph",
    );
}

#[test]
fn ids_that_no_file_lists_name_nobody() {
    let fixture = Fixture::new();
    fixture.import();
    let file = fixture.path("words.json");
    std::fs::write(&file, "{}").unwrap();
    let words =
        format!("[features.w]\nfrom = \"words\"\nfile = {file:?}\nvectors = {file:?}\nby_id = true\n");
    refused(fixture.make(&words), "words.json: `features.w.by_id`: no file lists the entities' ids");
}
