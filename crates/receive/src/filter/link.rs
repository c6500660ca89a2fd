//! One connection to one filter: writes, waits for the answer, within time limits.

use super::{Filter, FilterDialer, FilterIo};
use milter::{Asked, Client, Command, Fault, Limits, Macros, Step, Verdict};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

/// Octets read at once.
const READ_OCTETS: usize = 4 * 1024;
/// Octets that wait for a command with an answer before they are written all the same.
const OUTPUT_OCTETS_MAX: usize = 64 * 1024;

/// Why a filter could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("it took too long")]
    TooSlow,
    #[error("it broke the protocol: {0}")]
    Protocol(#[from] Fault),
}

/// A connection to a filter.
pub(crate) struct Link {
    io: Box<dyn FilterIo>,
    pub(crate) client: Client,
}

/// How long an answer may take.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For each answer, and anew with each sign of progress.
    pub(crate) each: Duration,
    /// For all of it.
    pub(crate) until: Instant,
}

impl Patience {
    pub(crate) fn of(each: Duration) -> Self {
        Self {
            each,
            until: Instant::now() + 2 * each,
        }
    }

    fn deadline(&self) -> Instant {
        (Instant::now() + self.each).min(self.until)
    }
}

impl Link {
    /// Connects and negotiates.
    pub(crate) async fn open(
        filter: &Filter,
        dialer: &dyn FilterDialer,
        body_octets_max: usize,
    ) -> Result<Self, Failure> {
        let deadline = Instant::now() + filter.connect_timeout;
        let io = timeout_at(deadline, dialer.dial(&filter.address))
            .await
            .map_err(|_| Failure::TooSlow)??;
        let limits = Limits {
            body_octets_max,
            ..Limits::default()
        };
        let mut link = Self {
            io,
            client: Client::new(limits),
        };
        link.converse(Patience::of(filter.command_timeout)).await?;
        Ok(link)
    }

    /// Tells the filter something and gives its verdict; [`Verdict::Continue`] where it gives none.
    pub(crate) async fn ask(
        &mut self,
        command: &Command,
        macros: &Macros,
        patience: Patience,
    ) -> Result<Verdict, Failure> {
        match self.client.ask(command, macros)? {
            Asked::Answer => self.converse(patience).await,
            Asked::Nothing if self.client.output_octets() < OUTPUT_OCTETS_MAX => Ok(Verdict::Continue),
            Asked::Nothing => {
                self.write(patience.deadline()).await?;
                Ok(Verdict::Continue)
            }
        }
    }

    /// Says a last thing that has no answer.
    pub(crate) async fn tell(&mut self, command: &Command, within: Duration) -> Result<(), Failure> {
        let _ = self.client.ask(command, &Macros::default())?;
        self.write(Instant::now() + within).await
    }

    async fn write(&mut self, deadline: Instant) -> Result<(), Failure> {
        let output = self.client.take_output();
        let work = async {
            self.io.write_all(&output).await?;
            self.io.flush().await
        };
        timeout_at(deadline, work).await.map_err(|_| Failure::TooSlow)??;
        Ok(())
    }

    async fn converse(&mut self, patience: Patience) -> Result<Verdict, Failure> {
        let mut deadline = patience.deadline();
        self.write(deadline).await?;
        let mut chunk = Vec::with_capacity(READ_OCTETS);
        loop {
            match self.client.step()? {
                Step::Verdict(verdict) => return Ok(verdict),
                Step::Progress => deadline = patience.deadline(),
                Step::Read => {
                    chunk.clear();
                    let read = timeout_at(deadline, self.io.read_buf(&mut chunk)).await;
                    if read.map_err(|_| Failure::TooSlow)?? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    self.client.feed(&chunk);
                }
            }
        }
    }
}
