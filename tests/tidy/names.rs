//! Names: one type name for one idea, one prefix for maxima, no pronouns.

use std::collections::BTreeMap;

use proc_macro2::TokenTree;
use syn::{Ident, Item, visit::Visit};

use super::source::{Source, assert_none, product_items, rust_files};

const LIBRARY: &str = "shared/spillway/src";

const PRODUCT: [&str; 5] = [LIBRARY, "shared/stand-ins/src", "shared/command/src", "shared/bench/src", "functions"];

/// Prefixes of constants that mean a maximum or a minimum, beside `MAX_` and `MIN_`.
const OTHER_BOUNDS: [&str; 9] =
    ["MOST", "LONGEST", "LARGEST", "WIDEST", "FURTHEST", "SHORTEST", "EARLIEST", "LATEST", "SMALLEST"];

/// Identifiers that name nothing.
const PRONOUNS: [&str; 11] =
    ["one", "other", "others", "those", "these", "there", "told", "whoever", "somebody", "nobody", "everybody"];

/// The types that a file defines at module level.
fn types(source: &Source) -> Vec<String> {
    let names = product_items(source.parse()).into_iter().filter_map(|item| match item {
        Item::Struct(item) => Some(item.ident.to_string()),
        Item::Enum(item) => Some(item.ident.to_string()),
        Item::Union(item) => Some(item.ident.to_string()),
        Item::Trait(item) => Some(item.ident.to_string()),
        _ => None,
    });
    names.collect()
}

fn twice_defined(sources: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.is_test_module()) {
        for name in types(source) {
            places.entry(name).or_default().push(&source.path);
        }
    }
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1);
    twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect()
}

/// Collects names that the code gives to constants, bindings, fields and functions.
#[derive(Default)]
struct Names(Vec<Ident>);

impl Visit<'_> for Names {
    fn visit_item_const(&mut self, item: &syn::ItemConst) {
        self.0.push(item.ident.clone());
        syn::visit::visit_item_const(self, item);
    }

    fn visit_impl_item_const(&mut self, item: &syn::ImplItemConst) {
        self.0.push(item.ident.clone());
        syn::visit::visit_impl_item_const(self, item);
    }

    fn visit_pat_ident(&mut self, pattern: &syn::PatIdent) {
        self.0.push(pattern.ident.clone());
        syn::visit::visit_pat_ident(self, pattern);
    }

    fn visit_field(&mut self, field: &syn::Field) {
        self.0.extend(field.ident.clone());
        syn::visit::visit_field(self, field);
    }

    fn visit_signature(&mut self, signature: &syn::Signature) {
        self.0.push(signature.ident.clone());
        syn::visit::visit_signature(self, signature);
    }
}

pub fn bad_names(source: &Source) -> Vec<String> {
    let mut names = Names::default();
    for item in product_items(source.parse()) {
        names.visit_item(&item);
    }
    let is_bad = |name: &str| {
        let is_bound =
            |bound: &str| name.strip_prefix(bound).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        PRONOUNS.contains(&name) || OTHER_BOUNDS.into_iter().any(is_bound)
    };
    let bad = names.0.into_iter().filter(|name| is_bad(&name.to_string()));
    bad.map(|name| format!("{}:{}: {name}", source.path, TokenTree::from(name.clone()).span().start().line)).collect()
}

#[test]
fn no_type_name_of_the_library_is_defined_twice() {
    assert_none("Types:", &twice_defined(&rust_files(LIBRARY)));
}

#[test]
fn maxima_start_with_max_and_no_name_is_a_pronoun() {
    let sources = PRODUCT.into_iter().flat_map(rust_files);
    let product = sources.filter(|source| !source.is_test_module());
    let violations: Vec<String> = product.flat_map(|source| bad_names(&source)).collect();
    assert_none("Names:", &violations);
}

#[test]
fn planted_bad_names_are_found() {
    let bad = |text| bad_names(&Source::planted("a.rs", text)).len();
    for text in
        ["const MOST: u8 = 1;", "const LONGEST_WAIT_MS: u64 = 1;", "fn f(other: u8) {}", "struct S { those: u8 }"]
    {
        assert_eq!(bad(text), 1, "{text}");
    }
    assert_eq!(bad("fn told() { let one = 1; }"), 2);
    assert_eq!(bad("const MAX_WAIT_MS: u64 = 1; const MOSTLY: u8 = 2; fn f(another: u8) {}"), 0);
    let twice =
        [Source::planted("a.rs", "struct S; enum E {}"), Source::planted("b.rs", "struct E; fn f() { struct S; }")];
    assert_eq!(twice_defined(&twice), ["E: a.rs, b.rs"]);
}
