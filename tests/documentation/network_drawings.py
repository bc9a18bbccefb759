"""The drawings of docs/network.md: the whole network, and each of its parts. Sizes are those of the base network."""

from __future__ import annotations

from tests.documentation.svg import Drawing


def draw_overview() -> Drawing:
    """The parts and what flows between them."""
    drawing = Drawing(
        480, 500, "The network: encoder, query generation, decoder, feature pyramid, pixel decoder and heads"
    )
    drawing.node(30, 20, 180, ("image", "320 × 320"), "data")
    drawing.node(270, 20, 180, ("expression", "up to 50 tokens"), "data")
    drawing.node(60, 110, 360, ("encoder", "BEiT-3: both attend to each other"))
    drawing.arrow((120, 74), (120, 108))
    drawing.arrow((360, 74), (360, 108))
    drawing.node(250, 206, 200, ("query generation", "10 queries with points"))
    drawing.node(30, 206, 180, ("feature pyramid", "80, 40, 20, 10"))
    drawing.arrow((120, 164), (120, 204))
    drawing.arrow((350, 164), (350, 204))
    drawing.text(130, 189, "patches", "soft")
    drawing.text(360, 189, "patches, text", "soft")
    drawing.node(30, 302, 180, ("pixel decoder", "embeddings 80 × 80"))
    drawing.node(250, 302, 200, ("point-prior decoder", "3 layers"))
    drawing.arrow((120, 260), (120, 300))
    drawing.arrow((350, 260), (350, 300))
    drawing.arrow((210, 242), (230, 242), (230, 328), (248, 328))
    drawing.node(20, 410, 104, ("existence",))
    drawing.node(132, 410, 110, ("global mask",))
    drawing.node(250, 410, 100, ("instance", "masks"))
    drawing.node(358, 410, 102, ("classes,", "boxes"))
    drawing.arrow((72, 356), (72, 408))
    drawing.arrow((187, 356), (187, 408))
    drawing.arrow((210, 340), (238, 340), (238, 385), (280, 385), (280, 408))
    drawing.arrow((320, 356), (320, 408))
    drawing.arrow((410, 356), (410, 408))
    drawing.text(240, 488, "instance mask = query · pixel embedding", "soft", "middle")
    return drawing


def draw_encoder() -> Drawing:
    """One layer of the multiway encoder."""
    drawing = Drawing(480, 420, "A layer of the encoder: joint self-attention, weights of its own for each modality")
    drawing.node(20, 18, 210, ("image tokens", "class token, 400 patches"), "data")
    drawing.node(250, 18, 210, ("text tokens", "up to 50"), "data")
    drawing.node(20, 104, 210, ("norm, q k v", "weights for images"))
    drawing.node(250, 104, 210, ("norm, q k v", "weights for text"))
    drawing.node(20, 192, 440, ("self-attention over all 451 tokens", "12 heads; padding is masked"))
    drawing.node(20, 280, 210, ("norm, projection, + ", "then FFN 3072, +"))
    drawing.node(250, 280, 210, ("norm, projection, + ", "then FFN 3072, +"))
    for x in (125, 355):
        drawing.arrow((x, 72), (x, 102))
        drawing.arrow((x, 158), (x, 190))
        drawing.arrow((x, 246), (x, 278))
        drawing.arrow((x, 334), (x, 368))
    drawing.text(240, 392, "12 layers; a last norm for each modality", "soft", "middle")
    drawing.text(240, 411, "+ adds the input of the branch", "soft", "middle")
    return drawing


def draw_query_generation() -> Drawing:
    """Text tokens and patches to queries with points."""
    drawing = Drawing(480, 470, "Query generation: text selector, attention to the image, point selector")
    drawing.node(20, 18, 200, ("text tokens",), "data")
    drawing.node(260, 18, 200, ("patches 20 × 20",), "data")
    drawing.node(20, 88, 200, ("Score Text Selector", "10 tokens, largest norm"))
    drawing.arrow((120, 50), (120, 86))
    drawing.node(20, 182, 440, ("cross-attention: selected tokens to patches", "after self-attention; then FFN"))
    drawing.arrow((120, 142), (120, 180))
    drawing.arrow((360, 50), (360, 180))
    drawing.node(260, 276, 200, ("attention map 20 × 20", "largest over the tokens"), "data")
    drawing.arrow((360, 236), (360, 274))
    drawing.node(260, 362, 200, ("Dist-Score Selector", "10 points, far apart"))
    drawing.arrow((360, 330), (360, 360))
    drawing.node(20, 362, 200, ("MLP", "token i with patch i"))
    drawing.arrow((120, 236), (120, 360))
    drawing.arrow((260, 389), (222, 389))
    drawing.arrow((120, 416), (120, 440))
    drawing.arrow((360, 416), (360, 440))
    drawing.text(120, 458, "10 queries", "bold", "middle")
    drawing.text(360, 458, "10 points", "bold", "middle")
    return drawing


def draw_decoder() -> Drawing:
    """One layer of the point-prior decoder."""
    drawing = Drawing(
        480, 402, "A layer of the point-prior decoder: self-attention, deformable attention around the points, FFN"
    )
    drawing.node(20, 18, 150, ("queries",), "data")
    drawing.node(190, 18, 130, ("points",), "data")
    drawing.node(340, 18, 120, ("4 maps",), "data")
    drawing.node(20, 96, 150, ("self-attention", "8 heads, + norm"))
    drawing.node(190, 96, 130, ("position", "query_pos"))
    drawing.arrow((95, 50), (95, 94))
    drawing.arrow((255, 50), (255, 94))
    drawing.arrow((190, 123), (172, 123))
    drawing.node(
        20, 200, 440, ("deformable attention", "8 heads × 4 maps × 4 samples around each", "reference point; + norm")
    )
    drawing.arrow((95, 150), (95, 198))
    drawing.arrow((255, 150), (255, 198))
    drawing.arrow((400, 50), (400, 198))
    drawing.text(265, 180, "reference points", "soft")
    drawing.node(20, 308, 440, ("feed-forward network 1024, + norm",))
    drawing.arrow((240, 276), (240, 306))
    drawing.arrow((240, 340), (240, 364))
    drawing.text(240, 388, "3 layers, the same reference points for all", "soft", "middle")
    return drawing


def draw_pixel_decoder() -> Drawing:
    """The feature pyramid, and the U-Net over it."""
    drawing = Drawing(480, 350, "Feature pyramid and pixel decoder: four maps of one, merged from coarse to fine")
    drawing.text(140, 28, "feature pyramid", "bold", "middle")
    drawing.text(366, 28, "pixel decoder", "bold", "middle")
    drawing.node(16, 146, 90, ("patches", "20 × 20"), "data")
    levels = (("80 × 80", 44), ("40 × 40", 112), ("20 × 20", 180), ("10 × 10", 248))
    for name, y in levels:
        drawing.node(150, y, 110, (name,))
        drawing.arrow((106, 173), (128, 173), (128, y + 16), (148, y + 16))
    merges = (("80 × 80", 44), ("40 × 40", 112), ("20 × 20", 180))
    for name, y in merges:
        drawing.node(310, y, 110, (name,))
        drawing.arrow((260, y + 16), (308, y + 16))
    drawing.arrow((260, 264), (365, 264), (365, 214))
    drawing.arrow((365, 180), (365, 146))
    drawing.arrow((365, 112), (365, 78))
    drawing.text(374, 240, "up, merge,", "soft")
    drawing.text(374, 258, "2 × conv", "soft")
    drawing.arrow((420, 60), (456, 60))
    drawing.text(240, 312, "each map of the pyramid: 1 × 1 and 3 × 3 convolution, norms", "soft", "middle")
    drawing.text(240, 334, "right: pixel embeddings, 256 channels, 80 × 80", "soft", "middle")
    return drawing


def draw_heads() -> Drawing:
    """From queries and pixel embeddings to the outputs."""
    drawing = Drawing(
        480, 360, "Heads: classes, boxes and instance masks from queries; global mask and existence from pixels"
    )
    drawing.node(150, 16, 180, ("queries", "of every decoder layer"), "data")
    drawing.node(20, 120, 120, ("linear", "class_logits"))
    drawing.node(160, 120, 150, ("MLP, + points", "boxes: cx cy w h"))
    drawing.node(330, 120, 130, ("dot product", "instance masks"))
    drawing.arrow((180, 70), (180, 95), (80, 95), (80, 118))
    drawing.arrow((240, 70), (240, 118))
    drawing.arrow((300, 70), (300, 95), (380, 95), (380, 118))
    drawing.node(280, 246, 180, ("pixel embeddings", "80 × 80"), "data")
    drawing.arrow((395, 246), (395, 176))
    drawing.node(20, 216, 180, ("convolution", "global mask"))
    drawing.node(20, 290, 180, ("MLP, mean over pixels", "existence"))
    drawing.arrow((280, 273), (240, 273), (240, 243), (202, 243))
    drawing.arrow((280, 273), (240, 273), (240, 317), (202, 317))
    return drawing


def draw_existence() -> Drawing:
    """How existence weighs the scores of queries."""
    drawing = Drawing(
        480, 250, "Post-processing: class and existence to scores, thresholds to boxes and the merged mask"
    )
    drawing.node(16, 16, 140, ("class", "softmax"))
    drawing.node(170, 16, 140, ("existence", "sigmoid"))
    drawing.node(16, 106, 294, ("score = class × existence",))
    drawing.arrow((86, 70), (86, 104))
    drawing.arrow((240, 70), (240, 104))
    drawing.node(16, 176, 140, ("boxes", "score > 0.7"))
    drawing.node(170, 176, 140, ("instance masks", "score > 0.7"))
    drawing.arrow((86, 138), (86, 174))
    drawing.arrow((240, 138), (240, 174))
    drawing.node(340, 176, 124, ("mask", "OR of all"))
    drawing.node(340, 16, 124, ("global mask", "≥ 0.5"))
    drawing.arrow((402, 70), (402, 174))
    drawing.arrow((310, 203), (338, 203))
    return drawing


DRAWINGS = {
    "network-overview.svg": draw_overview,
    "network-encoder.svg": draw_encoder,
    "network-query-generation.svg": draw_query_generation,
    "network-decoder.svg": draw_decoder,
    "network-pixel-decoder.svg": draw_pixel_decoder,
    "network-heads.svg": draw_heads,
    "network-existence.svg": draw_existence,
}
