use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;
use crate::task::Stop;

/// What time alone changes happens at most this late.
const TICK: Duration = Duration::from_millis(100);

/// Ends holds, drops what nobody needs, and writes the file.
pub(super) async fn run(shared: Arc<Shared>, mut stop: Stop) {
    loop {
        tokio::select! {
            biased;
            () = stop.asked() => break,
            () = tokio::time::sleep(TICK) => shared.tick(),
        }
        #[cfg(feature = "serde")]
        if let Some(disk) = &shared.disk
            && shared.act(|table, now| table.debounced(disk.debounce(), now))
        {
            save(&shared, disk).await;
        }
    }
    #[cfg(feature = "serde")]
    if let Some(disk) = &shared.disk
        && shared.act(|table, _| table.dirty.take()).is_some()
    {
        save(&shared, disk).await;
    }
}

#[cfg(feature = "serde")]
async fn save(shared: &Arc<Shared>, disk: &super::disk::Disk) {
    let services = shared.act(|table, _| table.served());
    let path = disk.path().to_path_buf();
    let kept = disk.kept();
    let max_bytes = disk.max_bytes();
    let written =
        tokio::task::spawn_blocking(move || super::disk::write(&path, &services, kept, max_bytes));
    let reason = match written.await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(lost) => lost.to_string(),
    };
    tracing::warn!(path = %disk.path().display(), %reason, "the cache file is not written");
    shared.act(|table, now| table.unsaved(reason, now));
}
