// AWS SDK for JavaScript, version 3: images from S3, verdicts of a hosted model, an error, pages.
import { createReadStream } from "node:fs";
import { writeFile } from "node:fs/promises";
import { GetObjectCommand, S3Client } from "@aws-sdk/client-s3";
import {
  DescribeProjectCommand,
  DetectAnomaliesCommand,
  LookoutVisionClient,
  paginateListModels,
} from "@aws-sdk/client-lookoutvision";

const { BUCKET, PROJECT, NORMAL, ANOMALY } = process.env;
const s3 = new S3Client({});
const client = new LookoutVisionClient({});
const verdicts = {};
for (const [name, key] of Object.entries({ NORMAL, ANOMALY })) {
  const { Body } = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: key }));
  const answer = await client.send(
    new DetectAnomaliesCommand({
      ProjectName: PROJECT,
      ModelVersion: "1",
      ContentType: "image/jpeg",
      Body: await Body.transformToByteArray(),
    }),
  );
  verdicts[name] = answer.DetectAnomalyResult.IsAnomalous;
}
// A stream, whose body the SDK doesn't sign.
const { Body } = await s3.send(new GetObjectCommand({ Bucket: BUCKET, Key: ANOMALY }));
await writeFile("anomaly.jpg", await Body.transformToByteArray());
const streamed = await client.send(
  new DetectAnomaliesCommand({
    ProjectName: PROJECT,
    ModelVersion: "1",
    ContentType: "image/jpeg",
    Body: createReadStream("anomaly.jpg"),
  }),
);
verdicts.STREAM = streamed.DetectAnomalyResult.IsAnomalous;
const models = [];
for await (const page of paginateListModels({ client }, { ProjectName: PROJECT })) {
  models.push(...page.Models.map((model) => model.ModelVersion));
}
let refused;
try {
  await client.send(new DescribeProjectCommand({ ProjectName: "there-is-none" }));
} catch (error) {
  refused = [error.name, error.$metadata.httpStatusCode, error.ResourceType];
}
console.log(JSON.stringify({ verdicts, models, refused }));
