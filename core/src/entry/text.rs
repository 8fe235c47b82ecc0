//! Shared text in archived entries: a [`Name`] is stored as a string.

use std::sync::Arc;

use rkyv::{
    Archive, Archived, Deserialize, Place, Resolver, Serialize,
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

/// Archives names with a time each.
#[derive(Debug)]
pub struct NamedTimes;

/// A name with a time.
#[derive(Archive, Serialize, Deserialize)]
pub struct NamedTime {
    #[rkyv(with = AsText)]
    name: Name,
    time: i64,
}

struct NamedTimeRef<'a>(&'a (Name, i64));

impl NamedTimeRef<'_> {
    fn owned(&self) -> NamedTime {
        NamedTime { name: self.0.0.clone(), time: self.0.1 }
    }
}

impl Archive for NamedTimeRef<'_> {
    type Archived = Archived<NamedTime>;
    type Resolver = Resolver<NamedTime>;

    fn resolve(&self, resolver: Self::Resolver, out: Place<Self::Archived>) {
        self.owned().resolve(resolver, out);
    }
}

impl<S: Fallible<Error: Source> + Writer + ?Sized> Serialize<S> for NamedTimeRef<'_> {
    fn serialize(&self, serializer: &mut S) -> Result<Self::Resolver, S::Error> {
        self.owned().serialize(serializer)
    }
}

impl ArchiveWith<Vec<(Name, i64)>> for NamedTimes {
    type Archived = Archived<Vec<NamedTime>>;
    type Resolver = Resolver<Vec<NamedTime>>;

    fn resolve_with(
        field: &Vec<(Name, i64)>,
        resolver: Self::Resolver,
        out: Place<Self::Archived>,
    ) {
        ArchivedVec::resolve_from_len(field.len(), resolver, out);
    }
}

impl<S> SerializeWith<Vec<(Name, i64)>, S> for NamedTimes
where
    S: Fallible<Error: Source> + Allocator + Writer + ?Sized,
{
    fn serialize_with(
        field: &Vec<(Name, i64)>,
        serializer: &mut S,
    ) -> Result<VecResolver, S::Error> {
        ArchivedVec::<Archived<NamedTime>>::serialize_from_iter::<NamedTimeRef<'_>, _, S>(
            field.iter().map(NamedTimeRef),
            serializer,
        )
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<Archived<Vec<NamedTime>>, Vec<(Name, i64)>, D>
    for NamedTimes
{
    fn deserialize_with(
        field: &Archived<Vec<NamedTime>>,
        _: &mut D,
    ) -> Result<Vec<(Name, i64)>, D::Error> {
        Ok(field.iter().map(|item| (item.name.as_str().into(), item.time.to_native())).collect())
    }
}

/// Archives a shared value as the value.
#[derive(Debug)]
pub struct Shared;

impl<T: Archive> ArchiveWith<Arc<T>> for Shared {
    type Archived = T::Archived;
    type Resolver = T::Resolver;

    fn resolve_with(field: &Arc<T>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        T::resolve(field, resolver, out);
    }
}

impl<T: Serialize<S>, S: Fallible + ?Sized> SerializeWith<Arc<T>, S> for Shared {
    fn serialize_with(field: &Arc<T>, serializer: &mut S) -> Result<T::Resolver, S::Error> {
        T::serialize(field, serializer)
    }
}

impl<T, D> DeserializeWith<T::Archived, Arc<T>, D> for Shared
where
    T: Archive<Archived: Deserialize<T, D>>,
    D: Fallible + ?Sized,
{
    fn deserialize_with(field: &T::Archived, deserializer: &mut D) -> Result<Arc<T>, D::Error> {
        field.deserialize(deserializer).map(Arc::new)
    }
}

impl ArchiveWith<Arc<[Name]>> for AsTexts {
    type Archived = Archived<Vec<String>>;
    type Resolver = Resolver<Vec<String>>;

    fn resolve_with(field: &Arc<[Name]>, resolver: Self::Resolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(field.len(), resolver, out);
    }
}

impl<S: Fallible<Error: Source> + Allocator + Writer + ?Sized> SerializeWith<Arc<[Name]>, S>
    for AsTexts
{
    fn serialize_with(field: &Arc<[Name]>, serializer: &mut S) -> Result<VecResolver, S::Error> {
        ArchivedVec::<ArchivedString>::serialize_from_iter::<TextRef<'_>, _, S>(
            field.iter().map(TextRef),
            serializer,
        )
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedVec<ArchivedString>, Arc<[Name]>, D>
    for AsTexts
{
    fn deserialize_with(
        field: &ArchivedVec<ArchivedString>,
        _: &mut D,
    ) -> Result<Arc<[Name]>, D::Error> {
        Ok(field.iter().map(|text| text.as_str().into()).collect())
    }
}

/// Archives a count in 64 bits on every machine; one that does not fit is the largest.
#[derive(Debug)]
pub struct AsCount;

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl ArchiveWith<usize> for AsCount {
    type Archived = Archived<u64>;
    type Resolver = ();

    fn resolve_with(field: &usize, resolver: (), out: Place<Self::Archived>) {
        wide(*field).resolve(resolver, out);
    }
}

impl<S: Fallible + ?Sized> SerializeWith<usize, S> for AsCount {
    fn serialize_with(field: &usize, serializer: &mut S) -> Result<(), S::Error> {
        wide(*field).serialize(serializer)
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<Archived<u64>, usize, D> for AsCount {
    fn deserialize_with(field: &Archived<u64>, _: &mut D) -> Result<usize, D::Error> {
        Ok(usize::try_from(field.to_native()).unwrap_or(usize::MAX))
    }
}
