//! The names of files and folders: what is now, and what a cut may bring back.

use super::content::Keeping;
use super::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    /// A file, by its number.
    File(u64),
    /// A folder.
    Folder,
}

/// All names of a disk.
#[derive(Clone, Default, Debug)]
pub(super) struct Names {
    now: BTreeMap<PathBuf, Node>,
    /// What names that changed stood for since their folder was synced, the oldest first.
    before: BTreeMap<PathBuf, Vec<Option<Node>>>,
}

impl Names {
    pub(super) fn now(&self, path: &Path) -> Option<Node> {
        self.now.get(path).copied()
    }

    /// Changes what a name stands for, in a folder that is there.
    pub(super) fn change(&mut self, path: &Path, node: Option<Node>) -> Result<()> {
        if !self.has_folder_of(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let before = match node {
            Some(node) => self.now.insert(path.to_owned(), node),
            None => self.now.remove(path),
        };
        self.before.entry(path.to_owned()).or_default().push(before);
        Ok(())
    }

    fn has_folder_of(&self, path: &Path) -> bool {
        path.parent().is_none_or(|folder| {
            let is_root = folder.parent().is_none() || folder.as_os_str().is_empty();
            is_root || self.now(folder) == Some(Node::Folder)
        })
    }

    /// The names in a folder are on the medium.
    pub(super) fn sync(&mut self, folder: &Path) {
        self.before.retain(|path, _| path.parent() != Some(folder));
    }

    /// The last parts of the names in a folder.
    pub(super) fn list(&self, folder: &Path) -> Vec<String> {
        let inside = self.now.keys().filter(|path| path.parent() == Some(folder));
        inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.now.keys().cloned().collect()
    }

    /// Every file that has a name, or could get one back by a cut.
    pub(super) fn files(&self) -> BTreeSet<u64> {
        let before = self.before.values().flatten().flatten();
        let nodes = self.now.values().chain(before);
        nodes
            .filter_map(|node| match node {
                Node::File(id) => Some(*id),
                Node::Folder => None,
            })
            .collect()
    }

    /// The names after a cut.
    pub(super) fn after_cut(&self, keeping: Keeping, dice: &mut Dice) -> Self {
        let mut kept = self.now.clone();
        for (path, before) in &self.before {
            let mut versions = before.clone();
            versions.push(self.now(path));
            let node = match keeping {
                Keeping::Nothing => versions.first(),
                Keeping::All => versions.last(),
                _ => dice.pick(&versions),
            };
            match node.copied().flatten() {
                Some(node) => kept.insert(path.clone(), node),
                None => kept.remove(path),
            };
        }
        let mut after = Self::default();
        // Folders come before what is in them: what is in none is lost.
        for (path, node) in kept {
            if after.has_folder_of(&path) {
                after.now.insert(path, node);
            }
        }
        after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(names: &Names) -> BTreeSet<Vec<String>> {
        let image = |seed| {
            let mut dice = Dice::new(seed);
            let keeping = Keeping::of(seed, &mut dice);
            let after = names.after_cut(keeping, &mut dice);
            let all = after.now.iter();
            all.map(|(path, node)| format!("{} {node:?}", path.display()))
                .collect()
        };
        (0..500).map(image).collect()
    }

    #[test]
    fn unsynced_names_come_or_go_each_for_itself_and_synced_ones_stay() {
        let path = Path::new;
        let mut names = Names::default();
        names.change(path("/a"), Some(Node::File(1))).unwrap();
        names.sync(path("/"));
        assert_eq!(images(&names).len(), 1);
        names.change(path("/b"), Some(Node::File(1))).unwrap();
        names.change(path("/a"), None).unwrap();
        let lists: BTreeSet<Vec<String>> = [
            vec!["/a File(1)".to_owned()],
            vec!["/a File(1)".to_owned(), "/b File(1)".to_owned()],
            vec!["/b File(1)".to_owned()],
            vec![],
        ]
        .into();
        assert_eq!(images(&names), lists);
        names.sync(path("/"));
        assert_eq!(images(&names), [vec!["/b File(1)".to_owned()]].into());
    }

    #[test]
    fn a_folder_that_is_lost_takes_along_what_was_synced_in_it() {
        let path = Path::new;
        let mut names = Names::default();
        assert!(names.change(path("/f/a"), Some(Node::File(1))).is_err());
        names.change(path("/f"), Some(Node::Folder)).unwrap();
        names.change(path("/f/a"), Some(Node::File(1))).unwrap();
        names.sync(path("/f"));
        let all = vec!["/f Folder".to_owned(), "/f/a File(1)".to_owned()];
        assert_eq!(images(&names), [vec![], all].into());
    }
}
