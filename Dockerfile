# The service, and the nodes of its cluster, without Airflow: docker build -t lookoutvision .
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt uv
COPY airflow_provider_lookoutvision airflow_provider_lookoutvision
# The package is an Airflow provider, and a service doesn't need Airflow.
RUN printf '%s\n' \
        "apache-airflow; python_version < '3'" \
        "apache-airflow-providers-amazon; python_version < '3'" \
        "apache-airflow-providers-common-compat; python_version < '3'" > without-airflow.txt \
    && uv venv /opt/lookoutvision \
    && uv pip install --no-cache --compile-bytecode --python /opt/lookoutvision/bin/python \
        --constraints constraints.txt --overrides without-airflow.txt '.[server,engine,postgres,ray]'

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 lookoutvision && install -d -o lookoutvision /data
COPY --from=build /opt/lookoutvision /opt/lookoutvision
ENV PATH=/opt/lookoutvision/bin:$PATH LOOKOUTVISION_DATA_DIR=/data
USER 1000
VOLUME /data
EXPOSE 8320
ENTRYPOINT ["lookoutvision"]
CMD ["serve", "--host", "0.0.0.0", "--allow-plaintext"]
