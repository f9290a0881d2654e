//! Writes to the state folder, beside the loop and in order: a slow disk must not hold packets up, and an older
//! reservation must not overwrite a newer one.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::run::Effect;
use crate::io::store::{StateDir, StoreError};
use crate::sans::Done;

type Write = Box<dyn FnOnce(&StateDir) -> Result<Option<Done>, StoreError> + Send>;

/// The queue of writes.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::UnboundedSender<Write>,
    task: JoinHandle<Arc<StateDir>>,
}

impl Writer {
    /// Writes to `state`; what became of each is told on `effects`. Must be called inside a tokio runtime.
    pub(super) fn start(state: StateDir, effects: mpsc::UnboundedSender<Effect>) -> Self {
        let (queue, mut writes) = mpsc::unbounded_channel::<Write>();
        let state = Arc::new(state);
        let task = tokio::spawn(async move {
            while let Some(write) = writes.recv().await {
                let folder = state.clone();
                let effect = match tokio::task::spawn_blocking(move || write(&folder)).await {
                    Ok(Ok(None)) | Err(_) => continue,
                    Ok(Ok(Some(done))) => Effect::Done(done),
                    Ok(Err(error)) => Effect::Failed(error.to_string()),
                };
                // The loop may have ended.
                let _ = effects.send(effect);
            }
            state
        });
        Self { queue, task }
    }

    /// Numbers below `ceiling` may be used once this is answered.
    pub(super) fn reserve(&self, ceiling: u64) {
        self.push(move |state| state.reserve(ceiling).map(|()| Some(Done::Reserved { ceiling })));
    }

    /// Stores the node's snapshot.
    pub(super) fn save_cache(&self, snapshot: Vec<u8>) {
        self.push(move |state| state.save_cache(&snapshot).map(|()| None));
    }

    fn push(&self, write: impl FnOnce(&StateDir) -> Result<Option<Done>, StoreError> + Send + 'static) {
        // The task ends only when this is dropped, or with the runtime.
        let _ = self.queue.send(Box::new(write));
    }

    /// Waits until everything is written, and gives the folder back, which is locked as long as somebody has it.
    pub(super) async fn finish(self) -> Option<Arc<StateDir>> {
        drop(self.queue);
        self.task.await.ok()
    }
}
