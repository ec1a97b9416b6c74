import { pathSchema, type VersionSpec } from "#contracts/function";
import type { TenantPolicy } from "#contracts/placement";
import { CloisterError } from "#errors/catalogue";
import { type NodePlacement, type PlacementAsk, toldPlacement } from "#queue/placement-asks";
import type { Placer } from "./placer.ts";

export interface NodeAnswerOptions {
  nodeId: string;
  placer: Placer;
  versions: { load(versionId: string): Promise<VersionSpec> };
  policies: { load(tenantId: string): Promise<TenantPolicy> };
}

/** What this node would do with a call, and what it has for it on each path. Runs nothing. */
export async function nodeAnswer(
  { nodeId, placer, versions, policies }: NodeAnswerOptions,
  { versionId, tenantId, wanted }: PlacementAsk,
): Promise<NodePlacement> {
  const [spec, policy] = await Promise.all([versions.load(versionId), policies.load(tenantId)]);
  if (spec.tenantId !== tenantId)
    throw new CloisterError("internal", "The question's tenant is not the version's");
  const decided = placer.decide(spec, policy, wanted);
  const paths: NodePlacement["paths"] = {};
  for (const path of pathSchema.options) {
    const outlook = placer.outlook(spec, path);
    if (outlook) paths[path] = outlook;
  }
  return { id: nodeId, paths, ...toldPlacement(decided) };
}
