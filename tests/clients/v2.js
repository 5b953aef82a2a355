// AWS SDK for JavaScript, version 2: the same, in a program that knows nothing of endpoints.
const AWS = require("aws-sdk");

const { BUCKET, PROJECT, NORMAL, ANOMALY } = process.env;
const s3 = new AWS.S3();
const client = new AWS.LookoutVision();

async function main() {
  const verdicts = {};
  for (const [name, key] of Object.entries({ NORMAL, ANOMALY })) {
    const { Body } = await s3.getObject({ Bucket: BUCKET, Key: key }).promise();
    const answer = await client
      .detectAnomalies({ ProjectName: PROJECT, ModelVersion: "1", ContentType: "image/jpeg", Body })
      .promise();
    verdicts[name] = answer.DetectAnomalyResult.IsAnomalous;
  }
  const models = (await client.listModels({ ProjectName: PROJECT }).promise()).Models;
  let refused;
  try {
    await client.describeProject({ ProjectName: "there-is-none" }).promise();
  } catch (error) {
    refused = [error.code, error.statusCode];
  }
  console.log(JSON.stringify({ verdicts, models: models.map((model) => model.ModelVersion), refused }));
}

main();
