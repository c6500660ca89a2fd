//! Gathering what speaks for and against a stranger's message, within a time limit.

use crate::session::Session;
use crate::transaction::Transaction;
use judge::{Evidence, Inputs};

impl Session {
    /// Asks the DNS all that judging needs. `None` when it took too long: try again later.
    pub(crate) async fn gather(&self, transaction: &Transaction) -> Option<Evidence> {
        let ctx = &self.ctx;
        let inputs = Inputs {
            ip: self.ip(),
            helo: &transaction.helo,
            reverse_path: &transaction.reverse_path,
            message: &transaction.message,
            receiver: ctx.hostname.as_str(),
            now: ctx.parts.clock.now(),
            connection: self.connection.as_deref(),
            dnsbl_zones: &ctx.blocklists,
        };
        let gathered = judge::gather(ctx.parts.resolver.as_ref(), &inputs);
        tokio::time::timeout(ctx.options.gather_timeout, gathered)
            .await
            .ok()
    }
}
