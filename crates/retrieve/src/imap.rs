//! The IMAP driver.

use crate::{Connection, Context};
use std::sync::Arc;
use tokio::sync::watch;

/// Serves one connection.
pub(crate) async fn run(_ctx: Arc<Context>, connection: Connection, _shutdown: watch::Receiver<bool>) {
    connection.close().await;
}
