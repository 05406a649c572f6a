"""The root key of a deployment."""

from chassis.connections.settings import Settings
from chassis.privacy.key_encryption import FileKeyEncryption, KeyEncryption


def root_key(settings: Settings) -> KeyEncryption:
    """The root key that the settings name: of a KMS where they name one, else of a file.

    Raises KeyEncryptionMissing for a file that is not there, which development alone makes.
    """
    if settings.kms_key is None:
        return FileKeyEncryption.at(settings.key_encryption_file, create=settings.development)
    from chassis.privacy.kms import KmsKeyEncryption

    return KmsKeyEncryption(settings.kms_key, settings.kms_endpoint)
