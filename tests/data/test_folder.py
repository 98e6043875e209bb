"""Pictures of any kind in folders become batches like those of the other data sets."""

import io
import os
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from d2lres import load_image_folder
from d2lres.data.folder import read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
def pets(tmp_path):
    """Ten red cats and five green dogs of different shapes."""
    for name, number, colour in [("cat", 10, RED), ("dog", 5, GREEN)]:
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(number):
            picture = Image.new("RGB", (20 + i, 30 - i), colour)
            picture.save(tmp_path / "pets" / name / f"{i}.{('png', 'jpg', 'JPEG')[i % 3]}")
    return tmp_path / "pets"


def colour_of(path, size=4):
    pixels = read_image(path, size)
    assert pixels.dtype == np.uint8 and pixels.shape == (3, size, size)
    return tuple(pixels.mean(axis=(1, 2)).round().astype(int))


def test_batches(pets, capsys):
    train_iter, test_iter = load_image_folder(pets, 4, (8, 12))
    assert capsys.readouterr().out == (
        f"pets: 12 training and 3 test images of 2 classes (cat, dog) from {pets}\n"
    )
    assert train_iter.class_names == test_iter.class_names == ("cat", "dog")
    assert sorted(train_iter.labels) == [0] * 8 + [1] * 4
    assert test_iter.labels.tolist() == [0, 0, 1]
    assert train_iter.shuffle and not test_iter.shuffle
    for X, y in train_iter:
        assert X.shape == (4, 3, 8, 12) and X.dtype == "float32"
        assert (X.asnumpy().mean(axis=(2, 3)).argmax(axis=1) == y.asnumpy()).all()


def test_options(pets, monkeypatch):
    monkeypatch.setenv("HOME", str(pets.parent))
    options = {"normalize": ((0.5,) * 3, (0.5,) * 3), "augment": lambda images, rng: 255 - images}
    both = load_image_folder("~/pets", 4, 8, num_train=5, num_test=2, seed=3, **options)
    assert str(pets) in both[0].source
    assert [data_iter.num_examples for data_iter in both] == [5, 2] and both[0].seed == 3
    ((X, _),) = both[1]
    assert np.allclose(X.asnumpy().mean(axis=(2, 3)), [(1, -1, -1), (-1, 1, -1)], atol=0.1)


def test_the_seed_draws_the_split(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("L", (4, 4), 10 * i).save(tmp_path / name / f"{i}.png")

    def test_pictures(seed, share):
        train_iter, test_iter = load_image_folder(tmp_path, 99, 4, test_share=share, seed=seed)
        (X, _), (Z, _) = next(iter(train_iter)), next(iter(test_iter))
        levels = [(255 * x.asnumpy()[:, 0, 0, 0]).round().tolist() for x in (X, Z)]
        assert sorted(levels[0] + levels[1]) == sorted([10 * i for i in range(20)] * 2)
        return levels[1]

    assert test_pictures(0, 0.25) == test_pictures(0, 0.25) != test_pictures(1, 0.25)
    assert [len(test_pictures(0, share)) for share in (0.01, 0.25, 0.999)] == [2, 10, 38]


def test_a_camera_held_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), RED)
    picture.paste(BLUE, (0, 0, 20, 20))
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter to the left
    picture.save(tmp_path / "1.png", exif=exif)
    upper, *_, lower = read_image(tmp_path / "1.png", (8, 4)).transpose(1, 2, 0)
    assert (upper == BLUE).all() and (lower == RED).all()


def test_the_centre_is_what_stays(tmp_path):
    picture = Image.new("RGB", (60, 20), RED)
    picture.paste(BLUE, (15, 0, 45, 20))
    picture.save(tmp_path / "1.png")
    assert colour_of(tmp_path / "1.png") == BLUE
    whole = read_image(tmp_path / "1.png", (4, 12))
    assert whole[0, 0].tolist()[::11] == [255, 255] and whole[2, 0, 5] == 255


def test_shrinking_smooths(tmp_path):
    chequered = np.indices((64, 64)).sum(axis=0) % 2 * 255
    Image.fromarray(chequered.astype(np.uint8)).save(tmp_path / "1.png")
    assert abs(read_image(tmp_path / "1.png", 8).astype(int) - 127).max() <= 10


def test_a_jpeg_that_is_read_at_half_its_size(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels).resize((160, 160), Image.Resampling.NEAREST)
    picture.save(tmp_path / "1.jpg", quality=95, subsampling=0)
    picture.save(tmp_path / "1.png")
    one, other = (read_image(tmp_path / name, 40).astype(int) for name in ("1.jpg", "1.png"))
    assert abs(one - other).mean() < 15


KINDS = {
    "grey": (Image.new("L", (9, 9), 70), (70, 70, 70)),
    "black and white": (Image.new("1", (9, 9), 1), (255, 255, 255)),
    "16 bits": (Image.fromarray(np.full((9, 9), 70 * 256 + 9, np.uint16)), (70, 70, 70)),
    "palette": (Image.new("RGB", (9, 9), RED).quantize(), RED),
    "grey and transparent": (Image.new("LA", (9, 9), (0, 0)), (255, 255, 255)),
    "transparent": (Image.new("RGBA", (9, 9), (255, 0, 0, 0)), (255, 255, 255)),
    "half transparent": (Image.new("RGBA", (9, 9), (255, 0, 0, 128)), (255, 127, 127)),
    "opaque": (Image.new("RGBA", (9, 9), (0, 0, 255, 255)), BLUE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_pictures(kind, tmp_path):
    picture, colour = KINDS[kind]
    picture.save(tmp_path / "1.png")
    assert colour_of(tmp_path / "1.png") == colour


def png(depth, kind, row, transparent, palette=b""):
    """A PNG of 4x4 pixels with a transparent colour."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", 4, 4, depth, kind, 0, 0, 0), b"PLTE": palette}
    parts |= {b"tRNS": transparent, b"IDAT": zlib.compress((b"\0" + row) * 4), b"IEND": b""}
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in parts.items():
        if part or name == b"IEND":
            sums = struct.pack(">I", zlib.crc32(name + part))
            content += struct.pack(">I", len(part)) + name + part + sums
    return content


@pytest.mark.parametrize(
    "picture",
    [
        png(1, 0, b"\0", struct.pack(">H", 0)),
        png(2, 0, bytes([0b10101010]), struct.pack(">H", 2)),
        png(4, 0, b"\x99\x99", struct.pack(">H", 9)),
        png(8, 0, b"\x09" * 4, struct.pack(">H", 9)),
        png(16, 0, struct.pack(">4H", *[17921] * 4), struct.pack(">H", 17921)),
        png(8, 2, b"\1\2\3" * 4, struct.pack(">3H", 1, 2, 3)),
        png(16, 2, struct.pack(">3H", 515, 1029, 9) * 4, struct.pack(">3H", 515, 1029, 9)),
        png(8, 3, b"\0" * 4, b"\0", b"\1\2\3"),
    ],
    ids=["grey 1", "grey 2", "grey 4", "grey 8", "grey 16", "RGB 8", "RGB 16", "palette"],
)
def test_a_transparent_colour_is_white_at_any_depth(tmp_path, picture):
    (tmp_path / "1.png").write_bytes(picture)
    assert colour_of(tmp_path / "1.png") == (255, 255, 255)
    nearly = png(16, 0, struct.pack(">4H", *[17920] * 4), struct.pack(">H", 17921))
    (tmp_path / "1.png").write_bytes(nearly)
    assert colour_of(tmp_path / "1.png") == (70, 70, 70)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_formats_and_the_first_of_moving_pictures(tmp_path, kind):
    first, other = (Image.new("RGB", (9, 9), colour) for colour in (RED, GREEN))
    moving = {"save_all": True, "append_images": [other]} if kind not in ("JPEG", "BMP") else {}
    first.save(tmp_path / "1", kind, **moving)
    assert np.allclose(colour_of(tmp_path / "1"), RED, atol=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_damaged_note_of_the_camera_does_no_harm(tmp_path, kind, recwarn, faults):
    Image.new("RGB", (9, 9), RED).save(tmp_path / "1", kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09")
    with faults("files", "pictures: a damaged note of the camera"):
        assert np.allclose(colour_of(tmp_path / "1"), RED, atol=2) and not recwarn.list


def test_inks_of_a_printer(tmp_path):
    Image.new("CMYK", (9, 9), (0, 0, 0, 255)).save(tmp_path / "1.jpg")
    assert max(colour_of(tmp_path / "1.jpg")) <= 2


def saved(kind):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (50, 50)).astype(np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def bomb():
    """The start of a picture that says it has 100 million pixels."""
    content = bytearray(saved("PNG"))
    content[16:24] = (10_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


BAD = {
    "empty": (b"", "cannot identify image file"),
    "text": (b"not a picture", "cannot identify image file"),
    "cut": (saved("PNG")[:-500], "image file is truncated"),
    "damaged": (saved("PNG")[:60] + bytes(40) + saved("PNG")[100:], "broken"),
    "bomb": (bomb(), "100000000 pixels. exceeds limit"),
    "another kind": (saved("TIFF"), "cannot identify image file"),
}


LEFT_OUT = "left out {} that cannot be read as JPEG, PNG, GIF, BMP or WebP: {}"


@pytest.mark.parametrize("kind", BAD)
def test_files_that_cannot_be_read_are_listed(kind, pets, capsys, faults):
    content, reason = BAD[kind]
    (pets / "dog" / "bad.png").write_bytes(content)
    words = rf"dog/bad.png is no JPEG, PNG, .* that can be read \(.*{reason}"
    with faults("files", "pictures: damaged, or something else"):
        with pytest.raises(ValueError, match=words):
            read_image(pets / "dog" / "bad.png", 8)
        load_image_folder(pets, 4, 8)
        left_out, source = capsys.readouterr().out.splitlines()
        assert left_out == LEFT_OUT.format(1, "dog/bad.png")
    assert source.startswith("pets: 12 training and 3 test images")


def test_what_lies_elsewhere_or_is_something_else_is_listed(pets, capsys, faults):
    (pets / "README.md").write_text("no picture")
    (pets / "dog" / "more").mkdir()
    (pets / "dog" / "0.png").rename(pets / "dog" / "more" / "0.png")
    (pets / "cat" / "0.png").rename(pets / "cat" / "0 (a copy).PNG.download")  # read all the same
    (pets / "cat" / "loop").symlink_to("loop")
    (pets / "dog" / "up").symlink_to("..")
    os.mkfifo(pets / "dog" / "pipe.png")
    with faults("files", "pictures: links in a circle, a pipe, folders"):
        load_image_folder(pets, 4, 8)
    left_out, source = capsys.readouterr().out.splitlines()
    names = "README.md, cat/loop, dog/more/, dog/pipe.png, dog/up/"
    assert left_out == LEFT_OUT.format(5, names)
    assert source.startswith("pets: 11 training and 3 test images")


def test_a_long_list_is_cut(pets, capsys):
    for i in range(12):
        (pets / "cat" / f"bad{i:02}.jpg").touch()
    load_image_folder(pets, 4, 8)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("left out 12 that") and line.endswith("cat/bad09.jpg, and 2 more")


def test_what_is_hidden_is_passed_over(pets, capsys):
    (pets / ".ipynb_checkpoints").mkdir()
    for name in ("cat/._0.jpg", "cat/.hidden.png", ".DS_Store"):
        (pets / name).write_text("no picture")
    load_image_folder(pets, 4, 8)
    assert capsys.readouterr().out.startswith("pets: 12 training")


@pytest.mark.parametrize(
    "encoding, umlaut, broken",
    [("utf-8", "K\xe4tzchen", "d\\xffg"), ("ascii", "K\\xe4tzchen", "d\\xffg")],
)
def test_any_names_on_any_terminal(pets, monkeypatch, encoding, umlaut, broken, faults):
    (pets / "cat").rename(pets / "K\xe4tzchen")
    (pets / "a\nb\x1b[31m").touch()
    folder = os.fsencode(pets) + b"/d\xffg"
    os.rename(pets / "dog", folder)
    with open(folder + b"/bad\xff.png", "wb"):
        pass
    printed = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", printed)
    with faults("files", "pictures: names of any bytes, on any terminal"):
        train_iter, _ = load_image_folder(pets, 4, 8)
    printed.seek(0)
    names = f"a\\nb\\x1b[31m, {broken}/bad\\xff.png\n"
    assert LEFT_OUT.format(2, names) in (text := printed.read())
    assert f"of 2 classes ({umlaut}, {broken})" in text
    assert train_iter.class_names == ("K\xe4tzchen", "d\\xffg")
    assert train_iter.source.encode("utf-8")


def test_folders_that_do_not_fit(pets, tmp_path):
    for folder, error, words in [
        (tmp_path / "missing", FileNotFoundError, "there is no folder .*missing"),
        (pets / "cat" / "0.png", FileNotFoundError, "no folder .*/0.png, only a file: unpack it"),
        (pets / "cat", ValueError, "a folder for each.*pets/cat/dog/1.jpg.* none"),
        (tmp_path, ValueError, "two or more classes.* holds only 'pets'"),
    ]:
        with pytest.raises(error, match=words):
            load_image_folder(folder, 4, 8)
    (pets / "bird").mkdir()
    with pytest.raises(ValueError, match="bird must hold two or more .* 0 of 0 can be read"):
        load_image_folder(pets, 4, 8)
    (pets / "bird" / "1.png").touch()
    Image.new("L", (4, 4)).save(pets / "bird" / "2.png")
    with pytest.raises(ValueError, match="bird must hold.* 1 of 2 can be read: add some"):
        load_image_folder(pets, 4, 8)
    with pytest.raises(ValueError, match="pets must.* and folders in it are not looked into"):
        (tmp_path / "zoo").mkdir()
        load_image_folder(tmp_path, 4, 8)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"resize": None}, "resize must say how large"),
        ({"resize": 0}, "resize must be a whole number"),
        ({"test_share": 1}, "test_share is a part of the pictures, like 0.2, not 1"),
        ({"test_share": "0.2"}, "test_share is a part of the pictures, like 0.2, not '0.2'"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"normalize": 3}, r"normalize must be \(mean, std\)"),
    ],
)
def test_bad_options(pets, options, words):
    with pytest.raises(ValueError, match=words):
        load_image_folder(pets, **{"batch_size": 4, "resize": 8, **options})
