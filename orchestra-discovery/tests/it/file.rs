//! The file as a source.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestra_discovery::source::file::Config;
use orchestra_discovery::{Change, Error, ErrorKind, FileSource, Scope, Source, Watch, WatchEvent};
use tempfile::TempDir;

fn entry(id: &str, weight: u32) -> String {
    format!("- {{service: payments, id: {id}, endpoint: '10.0.0.1:80', weight: {weight}}}\n")
}

struct Subject {
    directory: TempDir,
    path: PathBuf,
    source: FileSource,
}

impl Subject {
    fn new(content: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instances.yaml");
        std::fs::write(&path, content).unwrap();
        let source = FileSource::new(Config::new(&path)).unwrap();
        Self {
            directory,
            path,
            source,
        }
    }

    fn replace(&self, content: impl AsRef<[u8]>) {
        let beside = self.directory.path().join("beside");
        std::fs::write(&beside, content).unwrap();
        std::fs::rename(beside, &self.path).unwrap();
    }

    async fn weights(&self) -> Result<Vec<u32>, Error> {
        let members = self.source.snapshot(&Scope::All).await?;
        Ok(members.instances().iter().map(|it| it.weight).collect())
    }

    async fn watch(&self) -> Watch {
        let members = self.source.snapshot(&Scope::All).await.unwrap();
        self.source
            .watch(&Scope::All, members.revision())
            .await
            .unwrap()
    }
}

/// Past the next look, and then the one that confirms it.
async fn looked_twice() {
    tokio::time::sleep(Duration::from_millis(2_500)).await;
}

async fn upserted(watch: &mut Watch) -> Vec<u32> {
    let WatchEvent::Changes { changes, .. } = watch.next().await.unwrap() else {
        panic!("resync");
    };
    let weights = changes.iter().map(|change| match change {
        Change::Upserted(instance) => instance.weight,
        other => panic!("{other:?}"),
    });
    weights.collect()
}

#[tokio::test(start_paused = true)]
async fn missing_file_is_a_failure_from_the_start() {
    let subject = Subject::new("[]");
    std::fs::remove_file(&subject.path).unwrap();
    let error = subject.weights().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("instances.yaml"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn deleted_file_is_a_failure_and_its_return_no_change() {
    let subject = Subject::new(&entry("a", 1));
    let mut watch = subject.watch().await;
    let away = subject.directory.path().join("away");
    std::fs::rename(&subject.path, &away).unwrap();
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(subject.weights().await.is_err());
    std::fs::rename(&away, &subject.path).unwrap();
    let quiet = tokio::time::timeout(Duration::from_secs(9), watch.next()).await;
    assert!(quiet.is_err());
    assert_eq!(subject.weights().await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn wrong_file_is_told_once_with_its_place_and_changes_nothing() {
    let subject = Subject::new(&entry("a", 1));
    let mut watch = subject.watch().await;
    subject.replace("- service: payments\n  endpoint: 10.0.0.1:80\n  weight: -4\n");
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("instances.yaml:3:"), "{error}");
    let quiet = tokio::time::timeout(Duration::from_secs(9), watch.next()).await;
    assert!(quiet.is_err());
    assert!(subject.weights().await.is_err());
    subject.replace(entry("a", 4));
    assert_eq!(upserted(&mut watch).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn half_written_file_is_not_taken() {
    let whole = [entry("a", 1), entry("b", 2)].concat();
    let subject = Subject::new(&whole);
    let mut watch = subject.watch().await;
    // A writer that takes its time: there is one look at most before the file is another one.
    for length in [0, 7, entry("a", 1).len()] {
        std::fs::write(&subject.path, &whole[..length]).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(900), watch.next()).await;
        assert!(quiet.is_err(), "{quiet:?} after {length} bytes");
    }
    std::fs::write(&subject.path, [entry("a", 1), entry("b", 5)].concat()).unwrap();
    assert_eq!(upserted(&mut watch).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn file_written_in_place_with_the_same_length_and_time_is_noticed() {
    let subject = Subject::new(&entry("a", 1));
    assert_eq!(subject.weights().await.unwrap(), [1]);
    let before = std::fs::metadata(&subject.path)
        .unwrap()
        .modified()
        .unwrap();
    std::fs::write(&subject.path, entry("a", 7)).unwrap();
    let file = std::fs::File::options()
        .write(true)
        .open(&subject.path)
        .unwrap();
    file.set_modified(before).unwrap();
    looked_twice().await;
    subject.weights().await.unwrap();
    looked_twice().await;
    assert_eq!(subject.weights().await.unwrap(), [7]);
}

#[tokio::test(start_paused = true)]
async fn too_long_a_file_is_a_failure() {
    let subject = Subject::new(&entry("a", 1));
    assert_eq!(subject.weights().await.unwrap(), [1]);
    subject.replace(vec![b' '; (16 << 20) + 1]);
    looked_twice().await;
    let error = subject.weights().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("16777216"), "{error}");
}

#[test]
fn extension_must_say_the_format() {
    for path in ["instances", "instances.toml", "yaml"] {
        let error = FileSource::new(Config::new(Path::new(path))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path}");
    }
    assert!(FileSource::new(Config::new("a.YML")).is_ok());
}

#[tokio::test(start_paused = true)]
async fn directory_is_a_failure() {
    let subject = Subject::new("[]");
    std::fs::remove_file(&subject.path).unwrap();
    std::fs::create_dir(&subject.path).unwrap();
    let error = subject.weights().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[cfg(feature = "test-util")]
mod conformance {
    use std::num::NonZeroUsize;
    use std::sync::Arc;

    use orchestra_discovery::conformance::{Expresses, SourceSubject};
    use orchestra_discovery::{Instance, source_suite};

    use super::*;

    fn json(members: &[Instance]) -> String {
        let mut entries = serde_json::to_value(members).unwrap();
        for entry in entries.as_array_mut().unwrap() {
            entry.as_object_mut().unwrap().remove("incarnation");
        }
        entries.to_string()
    }

    /// One entry a line, which is YAML and not JSON.
    fn yaml(members: &[Instance]) -> String {
        let lines = members
            .iter()
            .map(|it| json(std::slice::from_ref(it)))
            .map(|it| format!("- {}\n", it.trim_matches(['[', ']'])));
        let lines: String = lines.collect();
        if lines.is_empty() {
            "[]".to_owned()
        } else {
            lines
        }
    }

    fn subject(extension: &str, write: fn(&[Instance]) -> String) -> SourceSubject {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instances").with_extension(extension);
        std::fs::write(&path, "[]").unwrap();
        let mut config = Config::new(&path);
        config.max_changes = NonZeroUsize::new(16).unwrap();
        let source = Arc::new(FileSource::new(config).unwrap());
        let (beside, away) = (
            directory.path().join("beside"),
            directory.path().join("away"),
        );
        let edited = path.clone();
        SourceSubject::new(source, Duration::from_secs(3), move |members| {
            std::fs::write(&beside, write(&members)).unwrap();
            std::fs::rename(&beside, &edited).unwrap();
            std::future::ready(Ok(()))
        })
        .expresses(Expresses::full())
        .breaks(move |broken| {
            let (from, to) = if broken {
                (&path, &away)
            } else {
                (&away, &path)
            };
            std::fs::rename(from, to).unwrap();
            std::future::ready(Ok(()))
        })
        .remembers(16)
        .keep(directory)
    }

    source_suite!(
        json_file,
        || async { subject("json", json) },
        start_paused = true
    );
    source_suite!(
        yaml_file,
        || async { subject("yaml", yaml) },
        start_paused = true
    );
}
