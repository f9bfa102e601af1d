// All texts of the page in English and Chinese.

const TEXTS = {
  en: {
    attributes: "Attributes", best: "Relevance", bm25: "BM25 (0 to 1)", choose: "Search by picture",
    absent: "not in the other", clear: "Remove all filters", close: "Close", compare: "Compare two models", cosine: "Cosine similarity", corrected: "Searched for “{0}”.", drop: "Drop a picture to search for it",
    empty: "No product matches.", emptyAdvice: "Try other words, or fewer filters.", error: "The search failed.", exact: "Search for “{0}” instead", filters: "Filters", find: "Find a value of {0}", from: "from",
    highest: "{0}, descending", imageWeight: "Weight of the picture", key: "This server needs an API key", keyWrong: "The API key is wrong",
    less: "Fewer", like: "Similar to: {0}", lowest: "{0}, ascending", matched: "Matches: ", matching: "Matching encoder", minScore: "Least score",
    more: "{0} more", next: "Next", noImages: "This model cannot search by picture.", notInFirst: "not in the first {0} of the other", noPicture: "No picture", noTitle: "(no title)", offline: "The server does not answer.", page: "Page {0} of {1}", pages: "Pages",
    picture: "picture", pictureAlt: "The picture that is searched for", pictureQuery: "Searching by this picture", pictureType: "Choose a JPEG, PNG or WebP picture.",
    rankThere: "rank {0} in the other", shared: "{0} of {1} products on this page are in both.",
    predicted: "Predicted keywords: ", previous: "Previous", query: "Search for products", remove: "Remove {0}", retry: "Try again", score: "Score", search: "Search",
    searchAmong: "Search {0} products", searching: "Searching", served: "Model {0}, index {1}: {2} products. Answered in {3} ms.", similar: "Similar", skip: "Skip to the results", slow: "Still searching…", sort: "Order", suggestions: "Suggestions",
    tooMany: "Too many requests. Wait a moment.", title: "title", to: "to", total: "{0} products", totalOne: "1 product", totalAbout: "about {0} products", use: "Use",
    weights: "Weights: title {0} %, picture {1} %", yes: "yes", no: "no",
  },
  zh: {
    attributes: "属性", best: "相关度", bm25: "BM25（0 到 1）", choose: "以图搜索",
    absent: "另一侧没有", clear: "清除所有筛选", close: "关闭", compare: "比较两个模型", cosine: "余弦相似度", corrected: "已搜索“{0}”。", drop: "拖放图片即可搜索",
    empty: "没有符合条件的商品。", emptyAdvice: "请换个词，或减少筛选条件。", error: "搜索失败。", exact: "改为搜索“{0}”", filters: "筛选", find: "查找 {0} 的值", from: "从",
    highest: "{0}：从高到低", imageWeight: "图片权重", key: "此服务器需要 API 密钥", keyWrong: "API 密钥错误",
    less: "收起", like: "相似于：{0}", lowest: "{0}：从低到高", matched: "匹配：", matching: "匹配编码器", minScore: "最低得分",
    more: "还有 {0} 项", next: "下一页", noImages: "此模型不支持以图搜索。", notInFirst: "不在另一侧的前 {0} 名", noPicture: "无图片", noTitle: "（无标题）", offline: "服务器没有响应。", page: "第 {0} / {1} 页", pages: "分页",
    picture: "图片", pictureAlt: "用于搜索的图片", pictureQuery: "正在按此图片搜索", pictureType: "请选择 JPEG、PNG 或 WebP 图片。",
    rankThere: "另一侧第 {0} 名", shared: "本页 {1} 件商品中有 {0} 件两边都有。",
    predicted: "预测关键词：", previous: "上一页", query: "搜索商品", remove: "移除 {0}", retry: "重试", score: "得分", search: "搜索",
    searchAmong: "搜索 {0} 件商品", searching: "搜索中", served: "模型 {0}，索引 {1}：{2} 件商品。用时 {3} 毫秒。", similar: "相似商品", skip: "跳到结果", slow: "仍在搜索…", sort: "排序", suggestions: "建议",
    tooMany: "请求过多，请稍候。", title: "标题", to: "到", total: "{0} 件商品", totalOne: "1 件商品", totalAbout: "约 {0} 件商品", use: "使用",
    weights: "权重：标题 {0} %，图片 {1} %", yes: "是", no: "否",
  },
};

let language = "en";

/** The language in use: "en" or "zh". */
export const currentLanguage = () => language;

/** A text, with its values in the place of {0}, {1}. */
export const text = (name, ...values) => TEXTS[language][name].replace(/\{(\d)\}/g, (_, place) => values[place]);

/** A number as the language writes it. */
export const number = (value, digits = 0) => value.toLocaleString(language, { maximumFractionDigits: digits, signDisplay: "negative" });

/** Sets the language, and the texts of the elements that name one. */
export function setLanguage(chosen) {
  language = chosen === "zh" ? "zh" : "en";
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const each of document.querySelectorAll("[data-text]")) each.textContent = text(each.dataset.text);
  for (const each of document.querySelectorAll("[data-label]")) each.setAttribute("aria-label", text(each.dataset.label));
}

/** The language of the browser, unless the reader has chosen one. */
export function preferredLanguage() {
  const chosen = new URLSearchParams(location.search).get("lang");
  if (chosen) return chosen;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}
