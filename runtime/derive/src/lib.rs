//! `#[derive(Shareable)]`: the promise of `limosa::Shareable`, checked field by field when the program is compiled.
//!
//! It accepts structures with a fixed layout (`repr(C)` or `repr(transparent)`) of which every field is `Shareable` and
//! that have no padding. It does *not* accept enumerations (not every bit pattern is one of their values), unions, or
//! fields that could hold a reference, a `bool`, a `char` or an ordinary pointer. The code that it makes names the crate
//! `limosa`: where a manifest renames it, the trait must be implemented by hand.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Result, parse_macro_input};

/// Derives `limosa::Shareable`; see there for what that means.
#[proc_macro_derive(Shareable)]
pub fn derive_shareable(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<Tokens> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "Shareable can be derived for structures only"));
    };
    if !has_fixed_layout(input)? {
        let reason = "Shareable needs a fixed layout: add #[repr(C)] or #[repr(transparent)]";
        return Err(Error::new_spanned(&input.ident, reason));
    }
    if let Some(lifetime) = input.generics.lifetimes().next() {
        return Err(Error::new_spanned(lifetime, "Shareable types hold no references: kernels cannot follow them"));
    }
    let types: Vec<_> = match &data.fields {
        Fields::Named(fields) => fields.named.iter().map(|field| &field.ty).collect(),
        Fields::Unnamed(fields) => fields.unnamed.iter().map(|field| &field.ty).collect(),
        Fields::Unit => Vec::new(),
    };
    let mut generics = input.generics.clone();
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(syn::parse_quote!(::limosa::Shareable));
        }
    }
    let name = &input.ident;
    let (implementation, arguments, bounds) = generics.split_for_impl();
    let message = format!(
        "{name} has padding, whose bytes would be uninitialised: order its fields by size, or fill the gaps with fields"
    );
    let check = quote! {{
        const fn shareable<T: ::limosa::Shareable>() -> usize {
            let () = T::CHECKED;
            ::core::mem::size_of::<T>()
        }
        ::core::assert!(0 #(+ shareable::<#types>())* == ::core::mem::size_of::<Self>(), #message);
    }};
    // Where nothing is left open it is checked here, else where the type is used with what fills it.
    let at_once =
        input.generics.params.is_empty().then(|| quote!(const _: () = <#name as ::limosa::Shareable>::CHECKED;));
    Ok(quote! {
        // SAFETY: the layout is fixed, each field is Shareable (so any bits are a value of it), and there is no padding,
        // as the constant makes sure.
        unsafe impl #implementation ::limosa::Shareable for #name #arguments #bounds {
            const CHECKED: () = #check;
        }
        #at_once
    })
}

/// Whether the structure has `repr(C)` or `repr(transparent)`.
fn has_fixed_layout(input: &DeriveInput) -> Result<bool> {
    let mut fixed = false;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            fixed |= meta.path.is_ident("C") || meta.path.is_ident("transparent");
            if meta.input.peek(syn::token::Paren) {
                // `align(n)` and `packed(n)`: the size tells whether they leave gaps.
                let content;
                syn::parenthesized!(content in meta.input);
                content.parse::<Tokens>()?;
            }
            Ok(())
        })?;
    }
    Ok(fixed)
}
