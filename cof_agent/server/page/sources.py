"""Where the images of a question come from: dropped files, pages of a PDF file, and the images of the server's folders."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from nicegui import events, ui

from cof_agent.errors import InputError
from cof_agent.image import file_of, pages_of
from cof_agent.server.service import Service
from cof_agent.server.settings import MEGABYTE

MOST = 8
"""Images of one question."""

_LONGEST = 60  # characters of a file's name


class Sources:
    """Takes files and names of files. listed: the server's files that are offered. on_images: called with the paths of images,
    and whether they join those before.

    What the reader has sent is in use until `close`.
    """

    def __init__(
        self, service: Service, listed: Sequence[str], on_images: Callable[[list[str], bool], Awaitable[None]]
    ) -> None:
        self._pictures, self._folders = service.incoming.pictures, service.incoming.folders
        self._without_folders, self._most_bytes = service.incoming.without_folders, service.settings.most_bytes
        self._on_images = on_images
        self._sent: dict[str, str] = {}  # names of the files that the reader has sent, by their paths
        with ui.row().classes("w-full items-center gap-2"):
            self._upload = ui.upload(
                label="Drop pictures or a PDF here",
                multiple=True,
                auto_upload=True,
                max_file_size=self._most_bytes,
                max_total_size=self._most_bytes,  # they come in one request
                max_files=MOST,
                on_multi_upload=self._received,
                on_rejected=lambda: ui.notify(self._too_much, type="negative"),
            )
            self._upload.props("flat bordered text-color=on-primary").classes("cof-upload w-full sm:w-64 grow")
            if listed:
                names = {file: "/".join(Path(file).parts[-2:]) for file in listed}
                choice = ui.select(names, label="or one of the server's", with_input=True)
                choice.classes("w-full sm:w-64 grow").on_value_change(lambda event: self._chosen(event.value))
            self._several = ui.switch("Several images").props("dense")

    @property
    def _too_much(self) -> str:
        return f"At most {MOST} files at once, and {self._most_bytes // MEGABYTE} MB together."

    def name_of(self, path: str) -> str:
        """What the reader calls an image: the name of the file that was sent, with the page of a PDF file."""
        name, mark, page = self.file_name(path).partition("#page=")
        return name[-_LONGEST:] + (f", page {page}" if mark else "")

    def file_name(self, path: str) -> str:
        """The name of an image's file as the reader has it, without folders; of a page of a PDF file with `#page=`."""
        file = file_of(path)
        return Path(self._sent.get(file, file)).name + path.removeprefix(file)

    def real(self, path: str) -> str:
        """The path of an image that may be shown to this reader.

        Raises:
            InputError: if it is none that the reader has sent, and lies in none of the server's folders.
        """
        return path if file_of(path) in self._sent else self._folders.file(path)

    def sent(self, paths: Sequence[str]) -> dict[str, str]:
        """The files among these images that the reader has sent, with their names."""
        return {file: self._sent[file] for file in map(file_of, paths) if file in self._sent}

    def hold(self, sent: Mapping[str, str]) -> None:
        """Uses files again that this reader has sent before, see `sent`; those that are gone are passed over."""
        for file, name in sent.items():
            if file not in self._sent and self._pictures.hold(file):
                self._sent[file] = name

    def close(self) -> None:
        """Ends the use of all that was sent."""
        for path in self._sent:
            self._pictures.release(path)
        self._sent.clear()

    async def _chosen(self, path: str | None) -> None:
        try:
            found = [] if path is None else await self._images_in(path)
        except InputError as error:
            ui.notify(self._without_folders(str(error)), type="negative", multi_line=True)
            return
        await self._opened(found)

    async def _received(self, event: events.MultiUploadEventArguments) -> None:
        self._upload.reset()
        found: list[str] = []
        try:
            for file in event.files:
                found += await self._images_in(await self._kept(await file.read(), file.name))
        except InputError as error:
            ui.notify(self._without_folders(str(error)), type="negative", multi_line=True)
        await self._opened(found)

    async def _opened(self, found: list[str]) -> None:
        if len(found) > 1:
            self._several.set_value(True)
        if found:
            await self._on_images(found, self._several.value)

    async def _kept(self, content: bytes, name: str) -> str:
        try:
            path = await asyncio.to_thread(self._pictures.add, content)
        except InputError:
            raise InputError(f"{name[-_LONGEST:]} is no image that can be read.") from None
        if path in self._sent:
            self._pictures.release(path)  # one use of it is enough
        self._sent[path] = name
        return path

    async def _images_in(self, path: str) -> list[str]:
        """An image, or the pages of a PDF file that the reader wants."""
        if not path.lower().endswith(".pdf"):
            return [path]
        pages = await asyncio.to_thread(pages_of, self.real(path))
        if len(pages) == 1:
            return pages
        with ui.dialog() as dialog, ui.card():
            ui.label(f"{self.name_of(path)} has {len(pages)} pages.").classes("cof-text")
            wanted = ui.input("Pages, such as 1 or 2,5-7", value="1").props("autofocus").classes("w-full")
            with ui.row().classes("w-full justify-end"):
                ui.button("Cancel", on_click=lambda: dialog.submit("")).props("flat no-caps")
                ui.button("Open", on_click=lambda: dialog.submit(wanted.value)).props("no-caps text-color=on-primary")
            wanted.on("keydown.enter", lambda: dialog.submit(wanted.value))
        asked = await dialog
        dialog.delete()
        return [pages[number - 1] for number in numbers(asked, len(pages))] if asked else []


def numbers(text: str, count: int) -> list[int]:
    """Pages as people write them, such as 1 or 2,5-7, in this order. count: of all pages.

    Raises:
        InputError: if it cannot be read, a page is not there, or there are more than `MOST`.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 20:
            raise InputError(f"{text[:40]} names no pages; write them as 1 or 2,5-7.")
        span = range(int(first), int(last or first) + 1)
        if not span or span[0] < 1 or span[-1] > count:
            raise InputError(f"there is no page {part.strip()}: the file has pages 1 to {count}.")
        found += span
        if len(found) > MOST:
            raise InputError(f"a question has at most {MOST} images; name fewer pages.")
    return found
