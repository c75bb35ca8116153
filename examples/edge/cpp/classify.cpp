// classify MODEL TEXT ...
// Labels and scores of texts with a file that reads strings (factory package --format text): no
// tokenizer here. Prints one line of JSON per text. A pair is one argument, a tab between its texts.

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <iostream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Strings = std::vector<std::string>;

struct Answer {
  std::string label;  // as JSON: a string, an array of strings, or null
  std::vector<float> scores;
};

bool contains(const Strings& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string joined(const Strings& names) {
  std::string result;
  for (const auto& name : names) result += (result.empty() ? "" : ", ") + name;
  return result;
}

std::string json_string(const std::string& text) {
  std::string result = "\"";
  for (const unsigned char byte : text) {
    if (byte == '"' || byte == '\\') {
      result += '\\';
      result += static_cast<char>(byte);
    } else if (byte < 0x20) {
      char escaped[7];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      result += escaped;
    } else {
      result += static_cast<char>(byte);
    }
  }
  return result + '"';
}

// The library must know every function of the header this was compiled with.
void start_onnxruntime() {
  const OrtApi* api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == nullptr) {
    throw std::runtime_error("onnxruntime " + std::string(OrtGetApiBase()->GetVersionString()) +
                             " is older than the headers of this program, which need 1." +
                             std::to_string(ORT_API_VERSION) + "; install a later library");
  }
  Ort::InitApi(api);
}

class Classifier {
 public:
  explicit Classifier(const std::filesystem::path& file)
      : environment_(ORT_LOGGING_LEVEL_FATAL, "classify"), session_(open(file)) {
    Strings inputs, outputs;
    for (size_t index = 0; index < session_.GetInputCount(); ++index) {
      inputs.emplace_back(session_.GetInputNameAllocated(index, allocator_).get());
    }
    for (size_t index = 0; index < session_.GetOutputCount(); ++index) {
      outputs.emplace_back(session_.GetOutputNameAllocated(index, allocator_).get());
    }
    pair_ = contains(inputs, "text_pair");
    labelled_ = contains(outputs, "label");
    if (!contains(inputs, "text") || !contains(outputs, "scores") || inputs.size() > 1U + pair_) {
      throw std::runtime_error(file.string() + ": takes " + joined(inputs) + " and gives " +
                               joined(outputs) + ", not text and scores; make the file with " +
                               "factory package BUNDLE --format text --output DIRECTORY");
    }
    labels_ = described("labels");
  }

  // Names of the scores, as a JSON array; empty where the file does not say.
  const std::string& labels() const { return labels_; }

  Answer classify(const std::string& argument) {
    const Strings texts = parts(argument);
    std::vector<const char*> names = {"text", "text_pair"};
    std::vector<Ort::Value> inputs;
    for (const auto& text : texts) inputs.push_back(string_tensor(text));
    std::vector<const char*> wanted = {"scores"};
    if (labelled_) wanted.push_back("label");
    const auto outputs = session_.Run(Ort::RunOptions{nullptr}, names.data(), inputs.data(),
                                      inputs.size(), wanted.data(), wanted.size());
    const auto count = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount();
    const float* scores = outputs[0].GetTensorData<float>();
    return {labelled_ ? label_of(outputs[1]) : "null", {scores, scores + count}};
  }

 private:
  Ort::Session open(const std::filesystem::path& file) {
    if (!std::filesystem::is_regular_file(file)) {
      throw std::runtime_error(file.string() + ": no such file; give the ONNX file of a text model");
    }
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    try {
      return Ort::Session(environment_, file.c_str(), options);
    } catch (const Ort::Exception& error) {
      const std::string message = error.what();
      throw std::runtime_error(file.string() + ": onnxruntime cannot load it: " +
                               message.substr(0, message.find('\n')));
    }
  }

  Strings parts(const std::string& argument) const {
    const auto tab = argument.find('\t');
    if (!pair_) return {argument};
    if (tab == std::string::npos) {
      throw std::runtime_error("this model takes pairs: put a tab between the two texts of " +
                               json_string(argument));
    }
    return {argument.substr(0, tab), argument.substr(tab + 1)};
  }

  Ort::Value string_tensor(const std::string& text) {
    const int64_t shape[] = {1};
    auto tensor = Ort::Value::CreateTensor(allocator_, shape, 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING);
    const char* const value = text.c_str();
    tensor.FillStringTensor(&value, 1);
    return tensor;
  }

  // One string per text, or of a multilabel model one per label, empty where it does not apply.
  static std::string label_of(const Ort::Value& labels) {
    const auto information = labels.GetTensorTypeAndShapeInfo();
    if (information.GetDimensionsCount() == 1) return json_string(labels.GetStringTensorElement(0));
    std::string result;
    for (size_t index = 0; index < information.GetElementCount(); ++index) {
      const auto name = labels.GetStringTensorElement(index);
      if (!name.empty()) result += (result.empty() ? "" : ", ") + json_string(name);
    }
    return "[" + result + "]";
  }

  std::string described(const char* key) {
    const auto metadata = session_.GetModelMetadata();
    const auto value = metadata.LookupCustomMetadataMapAllocated(key, allocator_);
    return value ? value.get() : "";
  }

  Ort::Env environment_;
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::Session session_;
  bool pair_ = false;
  bool labelled_ = false;
  std::string labels_;
};

void print(const Answer& answer, const std::string& labels) {
  std::ostringstream line;
  line.precision(std::numeric_limits<float>::max_digits10);
  line << "{\"label\": " << answer.label;
  if (!labels.empty()) line << ", \"labels\": " << labels;
  line << ", \"scores\": [";
  for (size_t index = 0; index < answer.scores.size(); ++index) {
    line << (index == 0 ? "" : ", ") << answer.scores[index];
  }
  std::cout << line.str() << "]}\n";
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: classify MODEL TEXT ...\n";
    return 2;
  }
  try {
    start_onnxruntime();
    Classifier classifier(arguments[1]);
    for (int index = 2; index < count; ++index) {
      print(classifier.classify(arguments[index]), classifier.labels());
    }
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
  return std::cout.flush() ? 0 : 1;
}
