//! The commands about addresses: where they lead and who may send as whom.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use mail::{Domain, EmailAddress};

#[derive(Subcommand, Debug)]
pub enum Alias {
    /// Let mail for an address go to others too: accounts, aliases and groups here, or addresses
    /// elsewhere.
    Add {
        alias: EmailAddress,
        #[arg(required = true, value_name = "TARGET")]
        targets: Vec<EmailAddress>,
    },
    /// Take targets away from an alias, or remove it when none is named.
    Remove {
        alias: EmailAddress,
        #[arg(value_name = "TARGET")]
        targets: Vec<EmailAddress>,
    },
    /// List the aliases and where they lead.
    List,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Post {
    /// Everybody, strangers too.
    Anyone,
    /// Whoever is logged in to an account of the group's domain.
    Domain,
    /// Whoever is logged in to an account that the group leads to.
    Members,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum YesNo {
    Yes,
    No,
}

#[derive(Subcommand, Debug)]
pub enum Group {
    /// Make a group.
    Add {
        group: EmailAddress,
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<EmailAddress>,
        #[command(flatten)]
        rules: GroupRules,
    },
    /// Change who may post to a group and whether members may send as it.
    Set {
        group: EmailAddress,
        #[command(flatten)]
        rules: GroupRules,
    },
    /// Add or remove members.
    #[command(subcommand)]
    Member(Member),
    /// Remove a group; its members keep what they have.
    Remove { group: EmailAddress },
    /// List the groups with their members.
    List,
}

#[derive(ClapArgs, Debug, Clone, Copy, Default)]
pub struct GroupRules {
    /// Who may post (default of a new group: anyone).
    #[arg(long, value_enum)]
    pub post: Option<Post>,
    /// Whether members may send as the group (default of a new group: no).
    #[arg(long, value_enum)]
    pub members_send: Option<YesNo>,
}

#[derive(Subcommand, Debug)]
pub enum Member {
    /// Add members: accounts, aliases and groups here, or addresses elsewhere.
    Add {
        group: EmailAddress,
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<EmailAddress>,
    },
    /// Remove members.
    Remove {
        group: EmailAddress,
        #[arg(required = true, value_name = "MEMBER")]
        members: Vec<EmailAddress>,
    },
}

#[derive(ClapArgs, Debug)]
pub struct DomainSet {
    pub domain: Domain,
    /// What divides user and tag: one character, or off.
    #[arg(long, value_name = "CHARACTER|off")]
    pub separator: Option<String>,
    /// Who gets mail for addresses that nobody has: an address here, or none.
    #[arg(long, value_name = "ADDRESS|none")]
    pub catch_all: Option<String>,
    /// Who gets mail for postmaster: an address, or none for the domain's first account.
    #[arg(long, value_name = "ADDRESS|none")]
    pub postmaster: Option<String>,
    /// Who gets mail for abuse: an address, or none for the one of postmaster.
    #[arg(long, value_name = "ADDRESS|none")]
    pub abuse: Option<String>,
    /// Refuse all mail for the domain with these words.
    #[arg(long, value_name = "WORDS", conflicts_with = "enable")]
    pub disable: Option<String>,
    /// With --disable: tell senders to try again later, instead of to give up.
    #[arg(long, requires = "disable")]
    pub temporarily: bool,
    /// Take mail for the domain again.
    #[arg(long)]
    pub enable: bool,
    /// Take every address of the domain for the same one at another domain here; or none.
    #[arg(long, value_name = "DOMAIN|none")]
    pub alias_of: Option<String>,
    /// Publish an MTA-STS policy of this mode (docs/MTA-STS.md): none takes a policy back, off
    /// publishes nothing.
    #[arg(long, value_name = "MODE")]
    pub mta_sts: Option<MtaSts>,
    /// For how long senders hold to the policy: a number of days with d behind it, 7d by default.
    #[arg(long, value_name = "TIME", requires = "mta_sts", value_parser = super::block::duration)]
    pub mta_sts_max_age: Option<std::time::Duration>,
    /// A host that takes the domain's mail, such as mail.example.com or *.example.com; may be given
    /// several times. By default this server.
    #[arg(long, value_name = "HOST", requires = "mta_sts")]
    pub mta_sts_mx: Vec<String>,
}

/// Modes of an MTA-STS policy.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtaSts {
    /// Mail goes anyhow; what is wrong is reported. Begin with this.
    Testing,
    /// Mail only over TLS with a certificate that verifies.
    Enforce,
    /// Senders forget the policy. The way back from the two above.
    None,
    /// Nothing is published.
    Off,
}

#[derive(Subcommand, Debug)]
pub enum Address {
    /// Say where mail for an address goes, and why.
    Explain { address: EmailAddress },
}

#[derive(Subcommand, Debug)]
pub enum SendAs {
    /// Let an account send as an address, or as every address of a domain (@example.com).
    Add { account: EmailAddress, what: String },
    /// Take that away.
    Remove { account: EmailAddress, what: String },
    /// List what an account may send as by the operator's word.
    List { account: EmailAddress },
}
