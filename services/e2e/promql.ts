import type { SyntaxNode } from "@lezer/common";
import { parser } from "@prometheus-io/lezer-promql";

export interface Selector {
  metric: string;
  /** Label, operator and value of each matcher. */
  matchers: { label: string; operator: string; value: string }[];
  /** Whether it is a range, as counters are used. */
  range: boolean;
  /** Labels that an aggregation around it keeps; undefined without one. */
  kept: string[] | undefined;
  /** Whether all labels go but `kept`. */
  quantile: boolean;
}

/** The selectors of a PromQL expression, by Prometheus's own grammar. Throws where it is none. */
export function selectorsOf(expression: string): Selector[] {
  const selectors: Selector[] = [];
  const text = (node: SyntaxNode): string => expression.slice(node.from, node.to);
  parser.parse(expression).iterate({
    enter({ node }) {
      if (node.type.isError)
        throw new Error(
          `No PromQL at ${node.from}: ${expression.slice(node.from)} (${expression})`,
        );
      if (node.name !== "VectorSelector") return;
      const metric = node.getChild("Identifier");
      if (!metric) throw new Error(`A selector without a metric: ${expression}`);
      const found = node.getChild("LabelMatchers")?.getChildren("UnquotedLabelMatcher") ?? [];
      const matchers = found.map((matcher) => ({
        label: text(matcher.getChild("LabelName") as SyntaxNode),
        operator: text(matcher.getChild("MatchOp") as SyntaxNode),
        value: JSON.parse(text(matcher.getChild("StringLiteral") as SyntaxNode)) as string,
      }));
      let kept: string[] | undefined;
      let quantile = false;
      for (let above = node.parent; above; above = above.parent) {
        if (above.name === "FunctionCall" && text(above).startsWith("histogram_quantile("))
          quantile = true;
        if (above.name !== "AggregateExpr" || kept) continue;
        const modifier = above.getChild("AggregateModifier");
        if (modifier?.getChild("Without"))
          throw new Error(`without() is not checked: ${expression}`);
        // topk and bottomk keep all labels of what they choose from.
        if (!modifier && /^(topk|bottomk)\b/.test(text(above))) continue;
        const labels = modifier?.getChild("GroupingLabels")?.getChildren("LabelName") ?? [];
        kept = labels.map(text);
      }
      selectors.push({
        metric: text(metric),
        matchers,
        range: node.parent?.name === "MatrixSelector",
        kept,
        quantile,
      });
    },
  });
  return selectors;
}
