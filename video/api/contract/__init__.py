"""The API described as data: what each call takes, answers and refuses. `/api/schema` and `docs/openapi.json` are it.

To add a call:

1. Put `@describe(…)` on the view's method (`video.api.contract.describe`): a tag, a summary, the serializer of its
   body, its query, its answers by status, and the codes of the errors that only this call has. The first paragraph of
   the view's docstring becomes the description. What the view's attributes say is read off them: the scope of an API
   key (`key_scope`), the ETag (`has_etag`), `deprecation`; a query that differs from `takes` stops the document.
2. Build what it answers with the functions of `video.api.contract.shapes`. A shape that several calls share has a name
   and stands in `video.api.contract.answers`.
3. A new error code gets a row in `video.api.contract.codes`: its status, what it means, what to do.
4. Run `make api`, which writes `docs/openapi.json` and `docs/errors.md`. A change that breaks clients needs a line in
   the changelog, under [Unreleased]: `- **Breaking**: POST /api/video/create …`.

The tests hold the rest: each address under /api is described, each field has a description, and every answer that any
test gets from the API is checked against the description of its call, so that neither can change without the other.
A field that is left out of some answers is `optional`; one that may be null is `maybe`.

The description may only promise less where the changelog says so; `tests/breaking.py` compares, and has a list for
pairs of patterns, which nothing can compare.

The same addresses under /api/v1 and those of other services' clients (`video.api.dialects`, `video.api.mcp`) are not in
the document, which says so in a sentence (`config.openapi`).

Nothing here is read while requests are answered, but for `/api/schema`.
"""
