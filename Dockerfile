# The page with its embedded models, on a CPU.
FROM python:3.12-slim
WORKDIR /srv
# The CPU build of torch, so that no CUDA comes along.
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY app.py ./
COPY app app
COPY d2f d2f
COPY assets assets
RUN useradd --create-home visitor && mkdir races && chown visitor races
ENV D2F_STORE=/srv/races/races.sqlite
USER visitor
EXPOSE 7860
CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
