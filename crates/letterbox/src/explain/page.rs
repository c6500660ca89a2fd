//! The page about failures: `docs/DELIVERY-FAILURES.md`, made from the patterns.

use super::{Class, Replies, Side};
use std::fmt::Write as _;

/// Words of replies that the page shows for a class at most.
const SHOWN_MAX: usize = 4;

const HEAD: &str = "\
# When delivery fails

Every failure and every delay of outbound mail has a *class*: a name that never changes, with whose move it is and what
would help. It is made from the other server's reply: its code, its enhanced status, its words and its name; or from
what this server found itself (no connection, no DNS answer, no TLS). It stands

- in the report that the sender gets, in words, and for programs as `X-Failure-Class`;
- in `posthaste trace`, with the server's own words beside it;
- in `posthaste queue show`, for what is still being tried.

The class explains; it decides nothing. Whether a message is tried again the reply's first digit says (RFC 5321
§4.2.1): 4 is tried until the message expires, 5 comes back at once.

`posthaste failures 550 5.7.1 blocked using zen.spamhaus.org` explains a reply that you have at hand; `--host` says
which server gave it, which matters for providers with words of their own.

This page is generated from the program: `posthaste failures > docs/DELIVERY-FAILURES.md`.
";

const OWN: &str = "
## Patterns of your own

`deliver.replies` in the settings names a file whose patterns are asked before the program's, in the same form as
`crates/letterbox/data/replies.toml`, whose head explains it. Such as, for a partner whose gateway has words of its own:

```toml
[[reply]]
class = \"greylisted\"
host = [\"partner.example\"]
code = [\"4\"]
text = [\"not yet * welcome\"]
```

It may also add classes and lists. The text is looked through once for each pattern, in time linear in its length;
there are no regular expressions, because what is matched comes from strangers. `posthaste check` reads the file.
";

/// The page as Markdown.
#[must_use]
pub fn page(replies: &Replies) -> String {
    let mut out = HEAD.to_owned();
    for side in [Side::Message, Side::Here, Side::Receiver, Side::Network] {
        let _ = write!(
            out,
            "\n## The move of {side}\n\n| class | what is wrong | what helps | said like |\n|---|---|---|---|\n"
        );
        for class in replies.classes().filter(|class| class.side == side) {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                class.name,
                class.problem,
                class.remedy,
                said_like(replies, class)
            );
        }
    }
    out.push_str("\n## Blocklists that are known by name\n\nThe report names the list and this page.\n\n");
    out.push_str("| list | look up, ask for removal |\n|---|---|\n");
    for list in &replies.lists {
        let page = list.page.as_deref().or(list.note.as_deref()).unwrap_or("");
        let _ = writeln!(out, "| {} | {page} |", list.name);
    }
    out.push_str(
        "\nA list that is not in this table is told by the domain or the link that the reply names.\n",
    );
    out.push_str(OWN);
    out
}

/// Some of the words by which a class is known: of the widest patterns, which hold at every server.
fn said_like(replies: &Replies, class: &Class) -> String {
    let mine = || {
        replies
            .rules
            .iter()
            .filter(move |rule| replies.classes[rule.class].as_ref() == class)
    };
    let general = mine().filter(|rule| rule.host.is_empty());
    let widest = general.max_by_key(|rule| (rule.text.len(), rule.written.len()));
    let shown = widest
        .or_else(|| mine().next())
        .map(|rule| rule.written.iter().take(SHOWN_MAX));
    let shown: Vec<String> = shown
        .into_iter()
        .flatten()
        .map(|text| format!("`{}`", text.replace(" * ", " … ")))
        .collect();
    shown.join(", ")
}
