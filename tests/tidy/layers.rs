//! The order of the library's modules: each imports only modules that `lib.rs` lists before it.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::Item;

use super::source::{Source, assert_none, file, product_items, rust_files};

const LIBRARY: &str = "shared/spillway/src/";

/// The modules that `lib.rs` declares, in order.
fn order(lib: &Source) -> Vec<String> {
    let modules = lib.parse().items.into_iter().filter_map(|item| match item {
        Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// The top-level modules that a file imports or names.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in product_items(source.parse()) {
        collect(item.into_token_stream(), &mut found);
    }
    found
}

/// Collects what follows each `crate::`: a name, or the names at the top of a group.
fn collect(tokens: TokenStream, found: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        if let TokenTree::Group(group) = token {
            collect(group.stream(), found);
        }
        let is_crate = matches!(token, TokenTree::Ident(name) if name == "crate");
        // Two colons stand between.
        match tokens.get(index + 3).filter(|_| is_crate) {
            Some(TokenTree::Ident(name)) => _ = found.insert(name.to_string()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let mut is_first = true;
                for token in group.stream() {
                    match token {
                        TokenTree::Ident(name) if is_first => _ = found.insert(name.to_string()),
                        TokenTree::Punct(punct) if punct.as_char() == ',' => {
                            is_first = true;
                            continue;
                        }
                        _ => {}
                    }
                    is_first = false;
                }
            }
            _ => {}
        }
    }
}

fn violations(lib: &Source, sources: &[Source]) -> Vec<String> {
    let order = order(lib);
    let place = |module: &str| order.iter().position(|listed| listed == module);
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !source.is_test_module()) {
        let path = source.path.trim_start_matches(LIBRARY);
        let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = place(module);
        assert!(own.is_some(), "lib.rs does not list {module}");
        for import in imports(source).iter().filter(|import| *import != module && place(import) >= own) {
            violations.push(format!("{} imports {import}, which lib.rs lists later", source.path));
        }
    }
    violations
}

#[test]
fn a_module_imports_only_modules_that_are_listed_before_it() {
    let lib = file("shared/spillway/src/lib.rs");
    assert!(order(&lib).len() > 20, "lib.rs lists the modules");
    assert_none("Layers:", &violations(&lib, &rust_files(LIBRARY)));
}

#[test]
fn a_planted_import_of_a_later_module_is_found() {
    let lib = Source::planted("lib.rs", "mod early; mod late;");
    let found = |text| violations(&lib, &[Source::planted("shared/spillway/src/early/part.rs", text)]).len();
    assert_eq!(found("use crate::late::Thing;"), 1);
    assert_eq!(found("use crate::{early::Part, late::{self, Thing}};"), 1);
    assert_eq!(found("fn f() { let x = vec![crate::late::thing()]; }"), 1);
    assert_eq!(found("use crate::early::late;"), 0);
    assert_eq!(found("#[cfg(test)] mod tests { use crate::late::Thing; }"), 0);
    let late = [Source::planted("shared/spillway/src/late.rs", "use crate::early::Part;")];
    assert_eq!(violations(&lib, &late), Vec::<String>::new());
}
