// Texts to labels with a bundle; the same code in Node and in a browser.
// onnxruntime, the tokenizer and the way to read a file are handed in, so nothing is imported here.

const RARE_IDEOGRAPH =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;

/**
 * Open a bundle.
 *
 * @param ort onnxruntime-node or onnxruntime-web.
 * @param Tokenizer the class of @huggingface/tokenizers.
 * @param read gives the bytes of a file of the bundle, named by its path in the bundle.
 * @param file another ONNX file of the bundle than the one its manifest names.
 * @param options onnxruntime's session options.
 */
export async function openClassifier({ ort, Tokenizer, read, file, options }) {
  const manifest = await readJson(read, "manifest.json");
  if (manifest.format !== "tinybert-factory-bundle" || manifest.format_version !== 1) {
    throw new Error(
      `manifest.json: format ${manifest.format} ${manifest.format_version} is not ` +
        "tinybert-factory-bundle 1; give a bundle's directory",
    );
  }
  const description = await readJson(read, "tokenizer.json");
  const tokenizer = new Tokenizer(description, await readJson(read, "tokenizer_config.json"));
  const bytes = await read(file ?? manifest.model.file);
  const session = await ort.InferenceSession.create(bytes, options);
  return new Classifier(ort, manifest, tokenizer, session, description.normalizer ?? {});
}

class Classifier {
  constructor(ort, manifest, tokenizer, session, normalizer) {
    this.ort = ort;
    this.manifest = manifest;
    this.tokenizer = tokenizer;
    this.session = session;
    this.normalizer = normalizer;
    this.begin = specialToken(tokenizer, "[CLS]");
    this.end = specialToken(tokenizer, "[SEP]");
  }

  /** Label and scores of one input: a text, or an array of two for a bundle of pairs. */
  async classify(input) {
    return answer(this.manifest, await this.logits(this.encode(input)));
  }

  /** Token ids and the number of the text each belongs to, cut to the bundle's length. */
  encode(input) {
    const texts = this.#checked(input);
    const pieces = texts.map((text) => this.#pieces(text));
    const room = this.manifest.max_length - 1 - texts.length;
    const lengths = shortened(pieces.map((ids) => ids.length), room);
    const ids = [this.begin];
    const types = [0];
    pieces.forEach((piece, type) => {
      ids.push(...piece.slice(0, lengths[type]), this.end);
      types.push(...new Array(lengths[type] + 1).fill(type));
    });
    return { ids, types };
  }

  /** The model's raw outputs for one encoded input. */
  async logits({ ids, types }) {
    const columns = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: types };
    const feeds = {};
    for (const name of this.manifest.model.inputs) {
      const numbers = BigInt64Array.from(columns[name], BigInt);
      feeds[name] = new this.ort.Tensor("int64", numbers, [1, ids.length]);
    }
    const { output } = this.manifest.model;
    const results = await this.session.run(feeds, [output]);
    return Array.from(results[output].data);
  }

  /** Ids without special tokens; makes up for where the library differs from the one it stands for. */
  #pieces(text) {
    let plain = text;
    // JavaScript lower-cases a capital sigma at a word's end to the final form
    if (this.normalizer.lowercase) plain = plain.replaceAll("\u03a3", "\u03c3");
    // ideographs beyond 16 bits are words of their own too
    if (this.normalizer.handle_chinese_chars) plain = plain.replace(RARE_IDEOGRAPH, " $& ");
    return this.tokenizer.encode(plain, { add_special_tokens: false }).ids;
  }

  #checked(input) {
    const texts = Array.isArray(input) ? input : [input];
    const wanted = this.manifest.text_pair ? 2 : 1;
    if (texts.length !== wanted || !texts.every((text) => typeof text === "string")) {
      const kind = wanted === 2 ? "pairs of texts" : "single texts";
      throw new TypeError(`${this.manifest.name} takes ${kind}`);
    }
    return texts;
  }
}

/** What logits mean: softmax, sigmoids with thresholds, or the value of a regression. */
function answer(manifest, logits) {
  const { task, labels, thresholds } = manifest;
  let scores = logits; // of a regression, whose one label is the value's name
  let label = labels[0];
  if (task === "classification") {
    const largest = Math.max(...logits);
    const shares = logits.map((logit) => Math.exp(logit - largest));
    const total = shares.reduce((sum, share) => sum + share, 0);
    scores = shares.map((share) => share / total);
    label = labels[logits.indexOf(largest)];
  } else if (task === "multilabel") {
    scores = logits.map((logit) => 1 / (1 + Math.exp(-logit)));
    label = labels.filter((_, number) => scores[number] >= thresholds[number]);
  }
  return { label, scores: Object.fromEntries(labels.map((name, number) => [name, scores[number]])) };
}

/** How many tokens of each text stay: the longer text gives until both are equal. */
function shortened(lengths, room) {
  if (lengths.length === 1) return [Math.min(lengths[0], room)];
  const [first, second] = lengths;
  if (first + second <= room) return lengths;
  const half = Math.floor(room / 2);
  // with both too long, the odd token goes to the longer one, to the second if they are equal
  if (Math.min(first, second) > half) return first > second ? [room - half, half] : [half, room - half];
  return first > second ? [room - second, second] : [first, room - first];
}

function specialToken(tokenizer, token) {
  const id = tokenizer.token_to_id(token);
  if (id === undefined) throw new Error(`tokenizer.json has no token ${token}; build the bundle again`);
  return id;
}

async function readJson(read, path) {
  const text = new TextDecoder().decode(await read(path));
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${path}: not JSON (${error.message}); copy the bundle again`);
  }
}
