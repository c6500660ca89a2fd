//! Orders about the routes of the store.

use super::Office;
use crate::words::{Refusal, Response, RouteOrder, RouteRow};

impl Office {
    pub(super) async fn routes(&self, order: RouteOrder) -> Result<Response, Refusal> {
        match order {
            RouteOrder::List => {
                let rows = self.directory.routes().await?;
                let row = |(domain, read): (String, Result<_, directory::Error>)| match read {
                    Ok(spec) => RouteRow {
                        domain,
                        spec: Some(spec),
                        damage: None,
                    },
                    Err(error) => RouteRow {
                        domain,
                        spec: None,
                        damage: Some(error.to_string()),
                    },
                };
                Ok(Response::Routes(rows.into_iter().map(row).collect()))
            }
            RouteOrder::Set { domain, spec } => {
                spec.check().map_err(Refusal::invalid)?;
                self.directory.set_route(&domain, &spec).await?;
                Ok(Response::Done(format!(
                    "the route for {domain} is set: what leaves from now on goes by it; what waits goes at its next \
                     try, or at once with: posthaste queue retry --all"
                )))
            }
            RouteOrder::Remove { domain } => {
                self.directory.remove_route(&domain).await.map_err(|e| match e {
                    directory::Error::NoSuch(_) => Refusal::not_found(format!(
                        "there is no route for {domain} in the store; see: posthaste route list"
                    )),
                    other => other.into(),
                })?;
                Ok(Response::Done(format!("the route for {domain} is taken away")))
            }
        }
    }
}
