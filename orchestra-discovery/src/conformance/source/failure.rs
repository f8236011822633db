//! Laws of failures, for a source that the suite can break.

use super::{
    Break, Change, SourceSubject, Verdict, Violation, Watch, WatchEvent, brings, broken, expect,
    member,
};

async fn set(subject: &SourceSubject, break_off: &Break, broken: bool) -> Verdict {
    break_off(broken).await?;
    tokio::time::sleep(subject.lag).await;
    Ok(())
}

fn is_removal(change: &Change) -> bool {
    matches!(change, Change::Removed(_))
}

/// Reads until the watch says that it failed; nobody is gone before that.
async fn fails(subject: &SourceSubject, watch: &mut Watch) -> Verdict {
    loop {
        let Ok(event) = tokio::time::timeout(subject.patience(), watch.next()).await else {
            return broken("nothing came of a failure".to_owned());
        };
        match event {
            Err(_failure) => return Ok(()),
            Ok(WatchEvent::Changes { changes, .. }) if !changes.iter().any(is_removal) => {}
            Ok(event) => return broken(format!("{event:?} came of a failure")),
        }
    }
}

pub(super) async fn failure_is_not_an_empty_answer(subject: &SourceSubject) -> Verdict {
    let Some(break_off) = &subject.break_off else {
        return Ok(());
    };
    subject.hold(&[member(1)?]).await?;
    subject.snapshot().await?;
    set(subject, break_off, true).await?;
    let answer = subject.snapshot().await;
    expect(answer.is_err(), || format!("{answer:?} while it fails"))?;
    set(subject, break_off, false).await?;
    subject.same(&subject.snapshot().await?, &[member(1)?])
}

/// What comes after the failure, the failures that are still told aside.
async fn recovered(subject: &SourceSubject, watch: &mut Watch) -> Result<WatchEvent, Violation> {
    let recovered = async {
        loop {
            if let Ok(event) = watch.next().await {
                return event;
            }
        }
    };
    match tokio::time::timeout(subject.patience(), recovered).await {
        Ok(event) => Ok(event),
        Err(_elapsed) => broken("nothing came after the failure".to_owned()),
    }
}

pub(super) async fn watch_goes_on_after_a_failure(subject: &SourceSubject) -> Verdict {
    let Some(break_off) = &subject.break_off else {
        return Ok(());
    };
    subject.hold(&[member(1)?]).await?;
    let mut watch = subject.watch_from_now().await?;
    break_off(true).await?;
    fails(subject, &mut watch).await?;
    set(subject, break_off, false).await?;
    subject.hold(&[member(1)?, member(2)?]).await?;
    match recovered(subject, &mut watch).await? {
        WatchEvent::Resync => Ok(()),
        WatchEvent::Changes { changes, .. } => {
            let brought = changes.iter().any(|change| brings(change, 2));
            let right = brought && !changes.iter().any(is_removal);
            expect(right, || format!("{changes:?} came after a failure"))
        }
    }
}
