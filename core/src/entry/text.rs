//! Shared text in archived entries: a [`Name`] is stored as a string.

use rkyv::{
    Archive, Archived, Place, Resolver, Serialize,
    rancor::{Fallible, Source},
    ser::{Allocator, Writer},
    string::{ArchivedString, StringResolver},
    vec::{ArchivedVec, VecResolver},
    with::{ArchiveWith, DeserializeWith, SerializeWith},
};

use crate::id::Name;

/// Archives a [`Name`] as a string.
#[derive(Debug)]
pub struct AsText;

impl ArchiveWith<Name> for AsText {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve_with(field: &Name, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedString::resolve_from_str(field, resolver, out);
    }
}

impl<S: Fallible<Error: Source> + Writer + ?Sized> SerializeWith<Name, S> for AsText {
    fn serialize_with(field: &Name, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedString::serialize_from_str(field, serializer)
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedString, Name, D> for AsText {
    fn deserialize_with(field: &ArchivedString, _: &mut D) -> Result<Name, D::Error> {
        Ok(field.as_str().into())
    }
}

/// Archives a list of [`Name`]s as strings.
#[derive(Debug)]
pub struct AsTexts;

struct TextRef<'a>(&'a Name);

impl Archive for TextRef<'_> {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedString::resolve_from_str(self.0, resolver, out);
    }
}

impl<S: Fallible<Error: Source> + Writer + ?Sized> Serialize<S> for TextRef<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        ArchivedString::serialize_from_str(self.0, serializer)
    }
}

impl ArchiveWith<Vec<Name>> for AsTexts {
    type Archived = Archived<Vec<String>>;
    type Resolver = Resolver<Vec<String>>;

    fn resolve_with(field: &Vec<Name>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(field.len(), resolver, out);
    }
}

impl<S: Fallible<Error: Source> + Allocator + Writer + ?Sized> SerializeWith<Vec<Name>, S>
    for AsTexts
{
    fn serialize_with(field: &Vec<Name>, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<ArchivedString>::serialize_from_iter::<TextRef<'_>, _, S>(
            field.iter().map(TextRef),
            serializer,
        )
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedVec<ArchivedString>, Vec<Name>, D> for AsTexts {
    fn deserialize_with(
        field: &ArchivedVec<ArchivedString>,
        _: &mut D,
    ) -> Result<Vec<Name>, D::Error> {
        Ok(field.iter().map(|text| text.as_str().into()).collect())
    }
}
