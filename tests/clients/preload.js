// What docs/moving.md shows: the endpoints, for a program of version 2 that sets none.
const AWS = require("aws-sdk");
AWS.config.lookoutvision = { endpoint: process.env.AWS_ENDPOINT_URL_LOOKOUTVISION };
AWS.config.s3 = { endpoint: process.env.AWS_ENDPOINT_URL_S3, s3ForcePathStyle: true };
