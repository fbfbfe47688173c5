"""What subjects usually are: the nouns a picture is compared with when nobody says.

A suggestion only; any other noun may be given.
"""

from __future__ import annotations

__all__ = ["NOUNS"]

# fmt: off
NOUNS: tuple[str, ...] = (
    "cat", "dog", "rabbit", "horse", "cow", "sheep", "pig", "goat", "bird", "parrot", "owl",
    "duck", "chicken", "penguin", "fish", "turtle", "hamster", "mouse", "elephant", "lion",
    "tiger", "bear", "panda", "monkey", "fox", "wolf", "deer", "giraffe", "zebra", "frog",
    "lizard", "snake", "dinosaur", "dragon", "butterfly", "man", "woman", "boy", "girl", "baby",
    "person", "face", "doll", "robot", "monster", "toy", "figurine", "plushie", "statue",
    "puppet", "car", "truck", "bus", "van", "motorbike", "bicycle", "train", "boat", "ship",
    "airplane", "helicopter", "rocket", "backpack", "handbag", "suitcase", "hat", "cap",
    "shirt", "dress", "jacket", "coat", "shoe", "sneaker", "boot", "glove", "scarf", "watch",
    "ring", "necklace", "sunglasses", "glasses", "umbrella", "chair", "sofa", "table", "bed",
    "desk", "lamp", "clock", "bookshelf", "carpet", "curtain", "mirror", "cup", "mug", "bowl",
    "plate", "teapot", "kettle", "bottle", "glass", "jar", "pot", "pan", "knife", "fork",
    "spoon", "candle", "vase", "basket", "box", "book", "pen", "pencil", "laptop", "phone",
    "camera", "keyboard", "television", "radio", "headphones", "guitar", "piano", "violin",
    "drum", "ball", "bat", "racket", "skateboard", "surfboard", "kite", "flower", "plant",
    "tree", "cactus", "mushroom", "apple", "banana", "orange", "lemon", "strawberry",
    "pineapple", "pumpkin", "bread", "cake", "cookie", "pizza", "hamburger", "sandwich",
    "house", "castle", "tower", "church", "barn", "bridge", "lighthouse", "fountain", "tent",
)
# fmt: on
