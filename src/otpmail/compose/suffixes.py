"""Media types by the end of a file's name, as IANA registers them.

This table is the same on every machine and under every Python; the standard library's depends on both.
"""

from types import MappingProxyType

from otpmail.compose.media_type import DEFAULT_TYPE

_OFFICE = "application/vnd.openxmlformats-officedocument"
_OPEN = "application/vnd.oasis.opendocument"

# Not here, so that such files are octets: mails (.eml), which would have to be good ones, and programs.
_SUFFIXES = {
    "application/epub+zip": "epub",
    "application/gzip": "gz tgz",
    "application/json": "json map",
    "application/ld+json": "jsonld",
    "application/msword": "doc dot",
    "application/ogg": "ogx",
    "application/pdf": "pdf",
    "application/pgp-keys": "key",
    "application/pgp-signature": "asc sig",
    "application/pkcs7-mime": "p7m p7c",
    "application/pkcs7-signature": "p7s",
    "application/pkix-cert": "cer crt",
    "application/postscript": "ps eps ai",
    "application/rtf": "rtf",
    f"{_OPEN}.graphics": "odg",
    f"{_OPEN}.presentation": "odp",
    f"{_OPEN}.spreadsheet": "ods",
    f"{_OPEN}.text": "odt",
    f"{_OFFICE}.presentationml.presentation": "pptx",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.apple.pkpass": "pkpass",
    "application/vnd.ms-excel": "xls xlt",
    "application/vnd.ms-outlook": "msg",
    "application/vnd.ms-powerpoint": "ppt pps",
    "application/vnd.rar": "rar",
    "application/vnd.sqlite3": "sqlite",
    "application/vnd.visio": "vsd",
    "application/wasm": "wasm",
    "application/x-7z-compressed": "7z",
    "application/x-bzip2": "bz2",
    "application/x-tar": "tar",
    "application/x-xz": "xz",
    "application/xhtml+xml": "xhtml",
    "application/xml": "xml xsd xsl",
    "application/yaml": "yaml yml",
    "application/zip": "zip",
    "application/zstd": "zst",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/midi": "mid midi",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg oga opus",
    "audio/wav": "wav",
    "audio/webm": "weba",
    "font/otf": "otf",
    "font/ttf": "ttf",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/jpeg": "jpg jpeg jpe",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/tiff": "tif tiff",
    "image/vnd.microsoft.icon": "ico",
    "image/webp": "webp",
    "text/calendar": "ics ifb",
    "text/css": "css",
    "text/csv": "csv",
    "text/html": "html htm",
    "text/javascript": "js mjs",
    "text/markdown": "md markdown",
    "text/plain": "txt text log",
    "text/tab-separated-values": "tsv",
    "text/vcard": "vcf vcard",
    "text/vtt": "vtt",
    "video/mp4": "mp4 m4v",
    "video/mpeg": "mpg mpeg",
    "video/ogg": "ogv",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-msvideo": "avi",
}
_BY_SUFFIX = MappingProxyType({suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()})


def type_of(filename: str) -> str:
    """The media type by the end of a file's name; that of any octets where nothing is known of it."""
    _, dot, suffix = filename.rpartition(".")
    return _BY_SUFFIX.get(suffix.lower(), DEFAULT_TYPE) if dot else DEFAULT_TYPE
