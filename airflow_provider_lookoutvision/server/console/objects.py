"""What the console reads and writes in buckets: with the rights to S3 of the key that signed in."""

from __future__ import annotations

from itertools import islice

from airflow_provider_lookoutvision.server.calls.access import Caller
from airflow_provider_lookoutvision.server.protocol.errors import (
    AccessDeniedException,
    InternalServerException,
    ServiceError,
    ValidationException,
)
from airflow_provider_lookoutvision.server.s3 import signatures
from airflow_provider_lookoutvision.server.s3.errors import S3Error
from airflow_provider_lookoutvision.server.s3.objects import Objects as FolderObjects
from airflow_provider_lookoutvision.server.settings import Settings
from airflow_provider_lookoutvision.server.storage.buckets import BucketError, Buckets, Location
from airflow_provider_lookoutvision.server.storage.s3_store import S3Store
from airflow_provider_lookoutvision.server.storage.stores import store

LARGEST_IMAGE = 8 << 20
LARGEST_DOCUMENT = 64 << 20


def location_of(uri: str) -> Location:
    """The object that ``s3://bucket/key`` names.

    :raises ValidationException: when it isn't of that form.
    """
    location = Location.of(uri)
    if not uri.startswith("s3://") or not location.bucket or not location.key:
        raise ValidationException(f"{uri[:200]!r} is no address of an object: write it as s3://bucket/key")
    return location


def folder_of(uri: str) -> Location:
    """The place of objects to be written that ``s3://bucket/prefix`` names; the prefix may be empty.

    :raises ValidationException: when it isn't of that form.
    """
    location = Location.of(uri)
    if not uri.startswith("s3://") or not location.bucket:
        raise ValidationException(f"{uri[:200]!r} names no bucket: write it as s3://bucket/folder/")
    return location


class Objects:
    """The buckets of the service, as one key may use them."""

    def __init__(self, settings: Settings, caller: Caller) -> None:
        self._settings, self._caller = settings, caller
        self._store = store(settings)
        self._buckets = Buckets(self._store, caller.key.allowed_buckets)

    @property
    def _folders(self) -> FolderObjects | None:
        return FolderObjects(self._settings.data_dir) if self._settings.buckets == "directory" else None

    def authorize(self, action: str, bucket: str) -> None:
        """Check a right to a bucket, by the name of an action of S3.

        :raises AccessDeniedException: when the key doesn't have it.
        """
        try:
            signatures.authorize(self._caller, action, bucket)
        except S3Error as error:
            raise AccessDeniedException(error.message) from None

    def read(self, location: Location, most: int = LARGEST_IMAGE) -> bytes:
        """An object's bytes.

        :raises ServiceError: when it can't be had, with the reason.
        """
        self.authorize("GetObject", location.bucket)
        try:
            with self._buckets.open(location, most) as stream:
                return stream.read()
        except BucketError as error:
            raise _translated(error) from None

    def stamp(self, location: Location) -> str:
        """A text that changes when the object does.

        :raises ServiceError: when it can't be had, with the reason.
        """
        self.authorize("GetObject", location.bucket)
        try:
            return self._buckets.stamp(location)
        except BucketError as error:
            raise _translated(error) from None

    def write(self, location: Location, content: bytes) -> None:
        """Write an object whole, replacing what was there; in folders a bucket is made at need.

        :raises ServiceError: when it can't be written, with the reason.
        """
        self.authorize("PutObject", location.bucket)
        try:
            if folders := self._folders:
                if all(name != location.bucket for name, _ in folders.buckets()):
                    self.authorize("CreateBucket", location.bucket)
                    folders.create_bucket(location.bucket)
                folders.check_writable(location.bucket, location.key)
            self._buckets.write(location, content)
        except BucketError as error:
            raise _translated(error) from None
        except S3Error as error:
            raise ValidationException(error.message) from None

    def find(self, location: Location) -> bytes | None:
        """An object's bytes, or None when there is no such object or bucket.

        :raises AccessDeniedException: when the key may not read it.
        """
        self.authorize("GetObject", location.bucket)
        try:
            with self._buckets.open(location, LARGEST_DOCUMENT) as stream:
                return stream.read()
        except BucketError as error:
            if error.input:
                return None
            raise _translated(error) from None

    def keys(self, bucket: str, prefix: str, most: int) -> list[str]:
        """The keys below a prefix in order, at most so many.

        :raises ServiceError: when they can't be listed, with the reason.
        """
        self.authorize("ListBucket", bucket)
        try:
            if isinstance(self._store, S3Store):
                return list(islice(self._store.keys(bucket, prefix), most))
            return list(
                islice(FolderObjects(self._settings.data_dir).listed(bucket, prefix, by_folder=False), most)
            )
        except BucketError as error:
            raise _translated(error) from None
        except S3Error as error:
            raise ValidationException(error.message) from None

    def buckets(self) -> list[str]:
        """The buckets that the key may use; none when they can't be listed."""
        try:
            self.authorize("ListAllMyBuckets", "")
        except AccessDeniedException:
            return []
        if isinstance(self._store, S3Store):
            found = self._store.names()
        else:
            found = [name for name, _ in FolderObjects(self._settings.data_dir).buckets()]
        return [name for name in found if self._caller.sees_bucket(name)]

    def check_writable(self, bucket: str) -> None:
        """Refuse a bucket that nothing can be written into; a folder is made when something is.

        :raises ServiceError: with the reason, and what to do.
        """
        self.authorize("PutObject", bucket)
        if not isinstance(self._store, S3Store):
            return
        try:
            self._buckets.check(bucket)
        except BucketError as error:
            if not error.input:
                raise _translated(error) from None
            raise ValidationException(
                f"There is no bucket {bucket!r} in S3 that the service may use: write the name of another one"
            ) from None


def _translated(error: BucketError) -> ServiceError:
    kind = ValidationException if error.input else InternalServerException
    return kind(str(error))
